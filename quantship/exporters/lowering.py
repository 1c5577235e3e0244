"""The forms a quantized linear layer can take in ONNX, and which schemes each can carry.

``nbits``    com.microsoft.MatMulNBits: any weights. The runtime quantizes the layer's input anew,
             symmetrically and for each block of input features, which is finer than one scale a
             token or a tensor, and other than what was trained.
``integer``  standard operators that quantize the input just as training did, in front of
             MatMulInteger: one scale an output feature, or one for the whole matrix. Codes are
             stored unsigned (shifted by 128): signed weights saturate in 16 bits on x86 without
             VNNI. Layers that it cannot carry, as those with float inputs, are ``nbits``.
``float``    no quantized layers: the reference.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from quantship.exporters.targets import Target
from quantship.quant.scheme import ActivationFormat, LayerFormat, Scheme, WeightFormat

LoweringName = Literal["auto", "float", "nbits", "integer"]
Lowering = Literal["float", "nbits", "integer"]
Form = Literal["nbits", "integer"]

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
            "integers away; use auto, nbits or integer"
        )
    if lowering == "auto":
        reasons = {form: _reject_form(scheme, form) for form in ("nbits", "integer")}
        return None if None in reasons.values() else reasons[_preferred(scheme, has_vnni=True)]
    return _reject_form(scheme, lowering)


def choose(scheme: Scheme | None, target: Target) -> Lowering:
    """The lowering that ``auto`` stands for on a target.

    A form that can carry the scheme. Of two that can: the one that quantizes inputs as in training
    where the other would be coarsely different; else the faster. With VNNI, MatMulNBits is the
    faster form in prefill and decode; without it, MatMulInteger on unsigned codes is meant to be
    the faster in prefill. ``nox -s bench`` measures both here.

    Args:
        scheme: Scheme of the model to export, which ``reject`` lets pass; None for a float model.
        target: Machine that the model will run on.
    """
    if scheme is None:
        return "float"
    form = _preferred(scheme, has_vnni=target != "x86")
    other: Form = "nbits" if form == "integer" else "integer"
    return form if _reject_form(scheme, form) is None else other


def form_of(lowering: Lowering, activation: ActivationFormat | None, *, grouped: bool) -> Form:
    """The form that a lowering gives to one quantized layer.

    Args:
        lowering: Lowering of the model.
        activation: How the layer's input was quantized in training; None: it was not.
        grouped: Whether an output feature has several scales.
    """
    return "integer" if lowering == "integer" and activation and not grouped else "nbits"


def arithmetic(form: Form, activation: ActivationFormat | None) -> str:
    """What one layer does to its input when the model runs.

    Args:
        form: Form of the layer.
        activation: How its input was quantized in training; None: it was not.
    """
    if form == "nbits":
        return "int8, symmetric, one scale a token and block of input features"
    assert activation is not None
    symmetry = "symmetric" if activation.symmetric else "asymmetric"
    kind = "static" if activation.ranges == "static" else "dynamic"
    shared = "token" if activation.granularity == "per_token" else "tensor"
    point = "" if activation.symmetric else " and zero point"
    return f"int8, {symmetry}, {kind}, one scale{point} a {shared}, as in training"


def _preferred(scheme: Scheme, *, has_vnni: bool) -> Form:
    activations = [format.activation for format in _linear_layers(scheme)]
    if any(one and (one.symmetric or one.granularity == "per_tensor") for one in activations):
        return "integer"  # static ranges among them
    main = LayerFormat(weight=scheme.weight, activation=scheme.activation)
    fast = _form("integer", main) == "integer" and main.weight.bits > 4
    return "integer" if fast and not has_vnni else "nbits"


def _reject_form(scheme: Scheme, lowering: Form) -> str | None:
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
    if lowering == "nbits" and scheme.is_static:
        return (
            f"the lowering 'nbits' finds the ranges of inputs at run time, and scheme "
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


def _form(lowering: Form, format: LayerFormat) -> Form:
    return form_of(lowering, format.activation, grouped=format.weight.group_size is not None)


def _fits_blocks(weight: WeightFormat) -> bool:
    group = weight.group_size
    return group is None or (SMALLEST_BLOCK <= group <= LARGEST_BLOCK and not group & (group - 1))
