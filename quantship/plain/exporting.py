"""Export any model from Python: a Hugging Face directory, or a module of PyTorch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from torch import nn

from quantship.artifact import Facts
from quantship.errors import ParityError
from quantship.exporters import codes, examples, opaque, pretrained, targets, traced
from quantship.exporters import lowering as lowerings
from quantship.exporters.lowering import Lowering, LoweringName
from quantship.exporters.targets import TargetName
from quantship.plain.quantization import convert
from quantship.quant import checkpoint
from quantship.quant.described import scheme_of
from quantship.quant.modules import FakeQuantModule
from quantship.quant.tensors import StoredCodes


def export(
    model: nn.Module | str | Path,
    out: str | Path,
    example_inputs: Any = None,
    *,
    lowering: LoweringName = "auto",
    target: TargetName = "this-machine",
    axes: Mapping[str, Mapping[int, str]] | None = None,
    scheme: str | None = None,
) -> Facts:
    """Write a model as ONNX that carries its integers to the bit.

    Models of transformers need no example inputs: decoders get a KV cache, encoders a varying batch
    and sequence. Other modules are traced with example inputs, whose first axis may vary.

    Args:
        model: Hugging Face directory, in float or quantized by quantship; or a module: in float, or
            as ``prepare_qat``, ``convert`` or ``quantize`` return it. It is left as it was.
        out: Directory for ``model.onnx`` and what belongs to it; made if need be.
        example_inputs: One batch: a tensor, a tuple of positional arguments, or a mapping of named
            ones.
        lowering: Form of the quantized layers.
        target: Machine that the model is for.
        axes: Names of the axes that may vary, by input and axis, as ``{"image": {0: "batch"}}``;
            None: the first of every example input. An axis that varies has two numbers or more.
        scheme: What to call the module's scheme in the model's metadata.

    Returns:
        Facts: lowering, target, scheme, opset, what layers do to their inputs, and how many
        matrices were read back from the file and found equal.

    Raises:
        QuantshipError: The model cannot be traced, or is of a kind that cannot be exported.
        ParityError: The ONNX model does not hold the codes; this would be a mistake of quantship.
        ValueError: The lowering cannot carry the module's formats.
    """
    place = Path(out)
    place.mkdir(parents=True, exist_ok=True)
    if isinstance(model, nn.Module):
        return _export_module(model, place, example_inputs, axes, lowering, target, scheme)
    source = Path(model)
    stored = checkpoint.load_codes(source) if _is_quantized(source) else {}
    form, name = _choose(stored, lowering, target, scheme)
    facts = pretrained.export(source, form, name, place, targets.resolve(target))
    return facts | _compared(place, stored)


def _export_module(
    module: nn.Module,
    out: Path,
    given: Any,
    axes: Mapping[str, Mapping[int, str]] | None,
    lowering: LoweringName,
    target: TargetName,
    scheme: str | None,
) -> Facts:
    if any(isinstance(layer, FakeQuantModule) for layer in module.modules()):
        module = convert(module)
    boxed = opaque.box(module)
    form, name = _choose(boxed.codes, lowering, target, scheme)
    origin = {
        "quantship_version": metadata.version("quantship"),
        "scheme": name,
        "algorithm": None,
        "source_sha256": None,
    }
    where = targets.resolve(target)
    if given is not None:
        example = examples.for_module(boxed.module, given, axes)
        facts = traced.export(boxed, example, form, where, origin, out)
    elif _is_transformer(module):
        facts = pretrained.export_boxed(boxed, form, origin, out, where)
    else:
        raise ValueError(
            f"a {type(module).__name__} can be called in many ways; give example_inputs, one batch "
            "of what it takes"
        )
    return facts | _compared(out, boxed.codes)


def _choose(
    stored: Mapping[str, StoredCodes], asked: LoweringName, target: TargetName, name: str | None
) -> tuple[Lowering, str | None]:
    """The lowering, and the name of the scheme."""
    scheme = scheme_of(stored, name or "custom")
    reason = lowerings.reject(scheme, asked)
    if reason is not None:
        raise ValueError(reason)
    form = lowerings.choose(scheme, targets.resolve(target)) if asked == "auto" else asked
    return form, None if scheme is None else scheme.name


def _compared(out: Path, stored: Mapping[str, StoredCodes]) -> Facts:
    """Proof that the file holds the codes.

    Raises:
        ParityError: It does not.
    """
    if not stored:
        return {}
    compared = codes.compare_with(out, stored)
    if not compared.equal:
        raise ParityError(
            f"{len(compared.different)} of {compared.tensors_compared} matrices are not the "
            f"module's in the ONNX model: {', '.join(compared.different[:5])}"
        )
    return {"codes_equal": True, "tensors_compared": compared.tensors_compared}


def _is_quantized(source: Path) -> bool:
    return "quantization_config" in json.loads((source / "config.json").read_bytes())


def _is_transformer(module: nn.Module) -> bool:
    from transformers import PreTrainedModel

    return isinstance(module, PreTrainedModel)
