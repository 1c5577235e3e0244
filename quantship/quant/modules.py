"""Layers that train under fake quantization, and how a model is made of them.

They hold the very parameters of the layers they replace, under the same names: tied matrices stay
tied, and a state dict saved from either loads into the other.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from quantship.quant.numerics import fake_quantize_tokens, fake_quantize_weight
from quantship.quant.scheme import ActivationFormat, Scheme, WeightFormat


class FakeQuantLinear(nn.Linear):
    """A linear layer that sees its weight, and if asked its input, through the integer grid."""

    def __init__(
        self, linear: nn.Linear, weight: WeightFormat, activation: ActivationFormat | None
    ) -> None:
        nn.Module.__init__(self)
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.weight, self.bias = linear.weight, linear.bias
        self.weight_format, self.activation_format = weight, activation

    def forward(self, input: Tensor) -> Tensor:
        """Float in, float out: (T, I) to (T, O)."""
        if self.activation_format is not None:
            input = fake_quantize_tokens(input)
        return F.linear(input, fake_quantize_weight(self.weight, self.weight_format), self.bias)


class FakeQuantEmbedding(nn.Embedding):
    """A token embedding whose rows are looked up through the integer grid."""

    def __init__(self, embedding: nn.Embedding, weight: WeightFormat) -> None:
        nn.Module.__init__(self)
        self.num_embeddings, self.embedding_dim = embedding.num_embeddings, embedding.embedding_dim
        self.padding_idx, self.max_norm = embedding.padding_idx, embedding.max_norm
        self.norm_type, self.sparse = embedding.norm_type, embedding.sparse
        self.scale_grad_by_freq = embedding.scale_grad_by_freq
        self.weight = embedding.weight
        self.weight_format = weight

    def forward(self, input: Tensor) -> Tensor:
        """Token ids in, float vectors out."""
        rows = super().forward(input)
        # Scales never cross rows, so only the rows looked up need quantizing.
        flat = rows.reshape(-1, self.embedding_dim)
        return fake_quantize_weight(flat, self.weight_format).view(rows.shape)


def formats(
    model: nn.Module, scheme: Scheme
) -> dict[str, tuple[WeightFormat, ActivationFormat | None]]:
    """What becomes of each weight matrix of a Hugging Face causal language model.

    Returns:
        Module name to its weight's and its input's format, for every linear layer and for the
        token embedding. A tied head is left out: it is the embedding.

    Raises:
        ValueError: A layer's input features cannot be cut into the scheme's groups, or the token
            embedding does more than look up.
    """
    head = model.get_output_embeddings()  # type: ignore[operator]
    embedding = model.get_input_embeddings()  # type: ignore[operator]
    tied = head is not None and head.weight is embedding.weight
    found: dict[str, tuple[WeightFormat, ActivationFormat | None]] = {}
    for name, module in model.named_modules():
        if module is head or module is embedding:
            if scheme.embedding is not None and not (module is head and tied):
                found[name] = (scheme.embedding, None)
        elif isinstance(module, nn.Linear):
            found[name] = (scheme.weight, scheme.activation)
        else:
            continue
        if name in found:
            if isinstance(module, nn.Embedding):
                _require_plain(module, name, scheme)
            group, width = found[name][0].group_size, module.weight.shape[-1]
            if group is not None and width % group:
                raise ValueError(
                    f"scheme '{scheme.name}' cuts weights into groups of {group}, and the "
                    f"{width} input features of layer '{name}' cannot be cut so; choose a scheme "
                    "whose group size divides them"
                )
    return found


def _require_plain(embedding: nn.Embedding, name: str, scheme: Scheme) -> None:
    # Gemma's scales what it looks up, and transformers 5.23 does not bring that scale back when it
    # loads a quantized checkpoint: better no training than a model that cannot be loaded.
    if type(embedding) not in (nn.Embedding, FakeQuantEmbedding):
        raise ValueError(
            f"scheme '{scheme.name}' quantizes the token embedding, and '{name}' is a "
            f"{type(embedding).__name__}, which does more than look up rows; choose a scheme that "
            "leaves the embedding in float"
        )


def prepare_qat(model: nn.Module, scheme: Scheme) -> nn.Module:
    """Replace, in place, every layer that the scheme quantizes by its fake-quantized twin."""
    found = formats(model, scheme)
    head, embedding = model.get_output_embeddings(), model.get_input_embeddings()  # type: ignore[operator]
    tied = head is not None and head.weight is embedding.weight
    for name, module in list(model.named_modules()):
        if module is head and tied and scheme.embedding is not None:
            twin: nn.Module = FakeQuantLinear(head, scheme.embedding, None)
        elif name not in found:
            continue
        elif isinstance(module, nn.Embedding):
            twin = FakeQuantEmbedding(module, found[name][0])
        else:
            twin = FakeQuantLinear(module, *found[name])
        twin.train(module.training)
        model.set_submodule(name, twin)
    return model
