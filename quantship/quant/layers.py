"""Which layers of a model are quantized, in what format, and where their matrices lie."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.modules.linear import NonDynamicallyQuantizableLinear

from quantship.quant import convolution
from quantship.quant.scheme import LayerFormat, Scheme, WeightFormat


def formats(model: nn.Module, scheme: Scheme) -> dict[str, LayerFormat]:
    """What becomes of each weight matrix of a model.

    Args:
        model: A Hugging Face model, or any module with linear and embedding layers; of the latter,
            two-dimensional convolutions count as well.
        scheme: Scheme that says so.

    Returns:
        Module name to format, for every layer that is quantized. A tied head is left out: it is
        the embedding.

    Raises:
        ValueError: A layer cannot take its format, or an override matches no layer.
    """
    embedding, head = ends(model)
    tied = is_tied(model)
    is_plain = not hasattr(model, "get_input_embeddings")
    found: dict[str, LayerFormat] = {}
    names: list[str] = []
    for name, module in model.named_modules():
        default: WeightFormat | None
        if module is head and tied:
            continue
        if module is head or module is embedding:
            default = scheme.head_format if module is head else scheme.embedding
            format = scheme.layer(name, None if default is None else LayerFormat(weight=default))
        elif is_linear(module) or (is_plain and _is_convolution(module)):
            default_format = LayerFormat(weight=scheme.weight, activation=scheme.activation)
            format = scheme.layer(name, default_format)
        elif isinstance(module, nn.Embedding) and embedding is None:
            default = scheme.embedding
            format = scheme.layer(name, None if default is None else LayerFormat(weight=default))
        else:
            continue
        names.append(name)
        if format is not None:
            _require_fit(module, name, format, scheme)
            found[name] = format
    for override in scheme.overrides:
        alone = scheme.model_copy(update={"overrides": (override,)})
        if not any(alone.layer(name, MATCHLESS) is not MATCHLESS for name in names):
            raise ValueError(
                f"the override '{override.layers}' of scheme '{scheme.name}' matches no layer; "
                f"layers are called {', '.join(names[:3])}, ..."
            )
    return found


MATCHLESS = LayerFormat(weight=WeightFormat(bits=2))
"""Stands for a layer that no override has touched; compared by identity."""


def ends(model: nn.Module) -> tuple[nn.Module | None, nn.Module | None]:
    """Token embedding and output head of a Hugging Face model; None for what a model lacks."""
    if not hasattr(model, "get_input_embeddings"):
        return None, None
    head = model.get_output_embeddings()  # type: ignore[operator]
    return model.get_input_embeddings(), head  # type: ignore[operator]


def is_tied(model: nn.Module) -> bool:
    """Whether the output head and the token embedding are one matrix."""
    embedding, head = ends(model)
    return head is not None and embedding is not None and head.weight is embedding.weight


def is_linear(module: nn.Module) -> bool:
    """Whether a module multiplies its input by a matrix: a linear layer, or GPT-2's Conv1D."""
    # nn.MultiheadAttention reads its output layer's weight past the layer's own forward.
    bypassed = type(module) is NonDynamicallyQuantizableLinear
    return (isinstance(module, nn.Linear) and not bypassed) or is_transposed(module)


def is_transposed(module: nn.Module) -> bool:
    """Whether a layer keeps its matrix as (in features, out features): GPT-2's Conv1D does."""
    # By name: transformers takes seconds to import, and plain modules do not need it.
    return type(module).__name__ in ("Conv1D", "FakeQuantConv1D")


def matrix(module: nn.Module) -> Tensor:
    """A layer's weight as (out features, in features), sharing its memory."""
    weight = module.weight
    assert isinstance(weight, Tensor)
    return weight.t() if is_transposed(module) else weight.flatten(1)


def _is_fake_quantized(module: nn.Module) -> bool:
    return hasattr(module, "rounding")


def _is_convolution(module: nn.Module) -> bool:
    return isinstance(module, nn.Conv2d)


def _require_fit(module: nn.Module, name: str, format: LayerFormat, scheme: Scheme) -> None:
    if not _is_fake_quantized(module):
        _require_plain(module, name)
    reason = convolution.unserved(format) if _is_convolution(module) else None
    if reason is not None:
        raise ValueError(
            f"scheme '{scheme.name}' does not fit convolution '{name}': {reason}; choose such a "
            "scheme, or leave the layer in float with an override"
        )
    # Gemma's scales what it looks up, and transformers 5.23 does not bring that scale back when it
    # loads a quantized checkpoint: better no training than a model that cannot be loaded.
    looks_up = type(module).forward is nn.Embedding.forward or _is_fake_quantized(module)
    if isinstance(module, nn.Embedding) and not looks_up:
        raise ValueError(
            f"scheme '{scheme.name}' quantizes the token embedding, and '{name}' is a "
            f"{type(module).__name__}, which does more than look up rows; choose a scheme that "
            "leaves the embedding in float, as 'w8a8-linear'"
        )
    group, width = format.weight.group_size, matrix(module).shape[1]
    if width == 1 and format.activation is not None and is_linear(module):
        raise ValueError(  # torchao 0.18 takes the only axis of such an input for none
            f"scheme '{scheme.name}' quantizes the inputs of '{name}', which has one input "
            "feature; torchao does not do that: leave its inputs in float with an override"
        )
    if group is not None and width % group:
        raise ValueError(
            f"scheme '{scheme.name}' cuts weights into groups of {group}, and the "
            f"{width} input features of layer '{name}' cannot be cut so; choose a scheme "
            "whose group size divides them, or leave the layer out with an override"
        )


def _require_plain(module: nn.Module, name: str) -> None:
    """Refuse layers that do more than their kind does: a fake-quantized twin would not do it."""
    kinds = (nn.Linear, nn.Conv2d)
    kind = next((kind for kind in kinds if isinstance(module, kind)), None)
    if kind is not None and type(module).forward is not kind.forward:
        raise ValueError(
            f"'{name}' is a {type(module).__name__}, whose forward is not that of nn."
            f"{kind.__name__}; leave it in float with an override"
        )
    if isinstance(module._parameters.get("weight"), nn.parameter.UninitializedParameter):
        raise ValueError(f"'{name}' has no weight yet; run the module on a batch before")
    if module._parameters.get("weight") is None:
        raise ValueError(
            f"'{name}' makes its weight anew at each call, as weight_norm does; remove the "
            "parametrization before, or leave the layer in float with an override"
        )
    if isinstance(module, nn.Embedding) and module.max_norm is not None:
        raise ValueError(
            f"'{name}' shortens its rows to max_norm as it looks them up; leave the layer in "
            "float with an override"
        )
