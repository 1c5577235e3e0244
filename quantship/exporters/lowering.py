"""The forms a quantized linear layer can take in ONNX, and which schemes each can carry.

``nbits``    com.microsoft.MatMulNBits: any weights. The runtime quantizes the layer's input anew,
             symmetrically and for each block of input features, which is finer than one scale a
             token or a tensor, and other than what was trained. Where a row of weights has one
             scale, blocks are of 32: the nearest to float inputs of all forms.
``integer``  standard operators that quantize the input just as training did, in front of
             MatMulInteger: one scale an output feature, or one for the whole matrix. Codes are
             stored unsigned (shifted by 128): signed weights saturate in 16 bits on x86 without
             VNNI. Layers that it cannot carry, as those with float inputs, are ``nbits``.
``qdq``      QuantizeLinear and DequantizeLinear, standard operators that other runtimes read too:
             any weights. Where a row of weights has one scale, inputs are quantized as in training;
             where it has several, inputs stay in float. Runtimes may fuse what stays in float:
             onnxruntime makes MatMulNBits of it.
``hybrid``   two branches on one set of codes: ``nbits`` token after token, and for prompts what
             is faster there: ``integer`` where it carries a layer, 8-bit blocks for 4-bit codes.
             Blocks of rows with one scale are larger than in ``nbits``: the fastest of all forms.
             A model that takes whole inputs only has the prompts' branch alone.
``float``    no quantized layers: the reference.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from quantship.exporters.targets import Target
from quantship.quant.scheme import ActivationFormat, LayerFormat, Scheme, WeightFormat

LoweringName = Literal["auto", "float", "nbits", "integer", "hybrid", "qdq"]
Lowering = Literal["float", "nbits", "integer", "hybrid", "qdq"]
Form = Literal["nbits", "integer", "qdq"]
PromptForm = Literal["nbits", "integer", "wide nbits"]

SMALLEST_BLOCK, LARGEST_BLOCK = 16, 256
"""MatMulNBits takes blocks of a power of two, between these sizes."""


def reject(scheme: Scheme | None, lowering: LoweringName) -> str | None:
    """Why this lowering cannot carry this scheme, or None when it can.

    Args:
        scheme: Scheme of the model to export; None for a float model.
        lowering: Lowering asked for.
    """
    if scheme is None:
        if lowering in ("auto", "float"):
            return None
        return f"a float model has no integers for the lowering '{lowering}'; use float or auto"
    if lowering == "float":
        return (
            f"scheme '{scheme.name}' is quantized and the lowering 'float' would throw its "
            "integers away; use auto, nbits, integer or qdq"
        )
    return None if lowering == "auto" else _reject_form(scheme, lowering)  # qdq carries any


def choose(scheme: Scheme | None, target: Target) -> Lowering:
    """The lowering that ``auto`` stands for on a target.

    Standard operators for a portable model. Else the fastest form for onnxruntime that can carry
    the scheme. On x86 that is ``hybrid`` for 8-bit codes whose inputs are quantized. Inputs that
    share a scale or are centred on zero are quantized as in training, since blocks would be
    something else. All others are ``nbits``: for 4-bit codes ``hybrid`` is faster at prompts, but
    holds them a second time, at a byte each. ``nox -s bench`` measures all of them. What none of
    these can carry, as groups of 24, standard operators do.

    Args:
        scheme: Scheme of the model to export, which ``reject`` lets pass; None for a float model.
        target: Machine that the model will run on.
    """
    if scheme is None:
        return "float"
    if target == "portable":
        return "qdq"
    ranked: list[Lowering] = ["nbits", "integer"]
    if _differs_from_blocks(scheme):
        ranked = ["integer", "nbits"]
    elif target in ("x86", "x86-vnni") and _carries_main(scheme):
        ranked = ["hybrid", "integer"]
    return next((one for one in ranked if reject(scheme, one) is None), "qdq")


def form_of(lowering: Lowering, activation: ActivationFormat | None, *, grouped: bool) -> Form:
    """The form that a lowering gives to one quantized layer.

    Args:
        lowering: Lowering of the model.
        activation: How the layer's input was quantized in training; None: it was not.
        grouped: Whether an output feature has several scales.
    """
    if lowering == "qdq":
        return "qdq"
    return "integer" if lowering == "integer" and activation and not grouped else "nbits"


def prompt_form(
    activation: ActivationFormat | None,
    target: Target,
    *,
    container_bits: int,
    grouped: bool,
    zero_points: bool,
) -> PromptForm:
    """The form that ``hybrid`` gives to a layer for prompts; ``wide nbits`` is one code a byte.

    Args:
        activation: How the layer's input was quantized in training; None: it was not.
        target: Machine that the model is for.
        container_bits: Bits that a code takes in the file.
        grouped: Whether an output feature has several scales.
        zero_points: Whether weights have zero points.
    """
    if zero_points:
        return "nbits"
    if container_bits == 8:
        return form_of("integer", activation, grouped=grouped)  # type: ignore[return-value]
    # Measured with VNNI: 1.2 times the speed of 4-bit blocks. Without it they are the faster.
    return "wide nbits" if target == "x86-vnni" else "nbits"


def arithmetic(form: Form, activation: ActivationFormat | None, *, grouped: bool = False) -> str:
    """What one layer does to its input when the model runs.

    Args:
        form: Form of the layer.
        activation: How its input was quantized in training; None: it was not.
        grouped: Whether an output feature has several scales.
    """
    by_block = "int8, symmetric, one scale a token and block of input features"
    if form == "nbits":
        return by_block
    if form == "qdq" and (activation is None or grouped):
        return f"float32; where onnxruntime fuses it to MatMulNBits, {by_block}"
    assert activation is not None
    symmetry = "symmetric" if activation.symmetric else "asymmetric"
    kind = "static" if activation.ranges == "static" else "dynamic"
    shared = "token" if activation.granularity == "per_token" else "tensor"
    point = "" if activation.symmetric else " and zero point"
    # A standard QuantizeLinear divides where training multiplies by the inverse.
    edges = " but for numbers on the edge of two codes" if (form, kind) == ("qdq", "static") else ""
    return f"int8, {symmetry}, {kind}, one scale{point} a {shared}, as in training{edges}"


def _differs_from_blocks(scheme: Scheme) -> bool:
    """Whether inputs are quantized in a way that one scale a block of a token does not refine."""
    activations = [format.activation for format in _linear_layers(scheme)]
    return any(one and (one.symmetric or one.granularity == "per_tensor") for one in activations)


def _carries_main(scheme: Scheme) -> bool:
    """Whether most layers multiply bytes by bytes in ``integer``."""
    main = LayerFormat(weight=scheme.weight, activation=scheme.activation)
    return _form("integer", main) == "integer" and main.weight.bits > 4


def _reject_form(scheme: Scheme, lowering: Lowering) -> str | None:
    if lowering == "qdq":
        return None
    layers = list(_linear_layers(scheme))
    if lowering == "integer" and not _carries_any(scheme):
        if all(format.activation is None for format in layers):
            return (
                f"the lowering 'integer' multiplies integers by integers, and scheme "
                f"'{scheme.name}' keeps activations in float; use nbits or auto"
            )
        return (
            f"the lowering 'integer' takes one scale an output feature, and scheme "
            f"'{scheme.name}' has groups of {scheme.weight.group_size}; use nbits or auto"
        )
    in_blocks = [format.weight for format in layers if _form(lowering, format) == "nbits"]
    in_blocks += [weight for weight in (scheme.embedding, scheme.head_format) if weight is not None]
    for weight in in_blocks:
        if not _fits_blocks(weight):
            return (
                f"the lowering '{lowering}' takes groups of a power of two from {SMALLEST_BLOCK} "
                f"to {LARGEST_BLOCK}, and scheme '{scheme.name}' has groups of {weight.group_size}"
            )
    if lowering in ("nbits", "hybrid") and scheme.is_static:
        return (
            f"the lowering '{lowering}' finds the ranges of inputs at run time, and scheme "
            f"'{scheme.name}' was trained with static ones; use integer or auto"
        )
    return None


def _linear_layers(scheme: Scheme) -> Iterator[LayerFormat]:
    yield LayerFormat(weight=scheme.weight, activation=scheme.activation)
    for override in scheme.overrides:
        if override.weight is not None:
            yield LayerFormat(weight=override.weight, activation=override.activation)


def _carries_any(scheme: Scheme) -> bool:
    return any(_form("integer", format) == "integer" for format in _linear_layers(scheme))


def _form(lowering: Lowering, format: LayerFormat) -> Form:
    return form_of(lowering, format.activation, grouped=format.weight.group_size is not None)


def _fits_blocks(weight: WeightFormat) -> bool:
    group = weight.group_size
    return group is None or (SMALLEST_BLOCK <= group <= LARGEST_BLOCK and not group & (group - 1))
