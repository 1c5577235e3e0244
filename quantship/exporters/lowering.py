"""The forms a quantized linear layer can take in ONNX, and which schemes each can carry.

``nbits``    com.microsoft.MatMulNBits. The runtime quantizes the layer's input again, symmetrically
             and for each block of input features, which is finer than one scale a token.
``integer``  standard-opset dynamic quantization, one scale and zero point a token, in front of
             MatMulInteger: the very arithmetic that w8a8 was trained with. Codes are stored
             unsigned (shifted by 128): signed weights saturate in 16 bits on x86 without VNNI.
``float``    no quantized layers: the reference.
"""

from __future__ import annotations

from typing import Literal

from quantship.quant.scheme import Scheme

LoweringName = Literal["auto", "float", "nbits", "integer"]
Lowering = Literal["float", "nbits", "integer"]

ACTIVATION_ARITHMETIC: dict[Lowering, str] = {
    "float": "float32",
    "nbits": "int8, symmetric, one scale a token and block of input features",
    "integer": "int8, asymmetric, one scale and zero point a token",
}
"""What each lowering does to the inputs of quantized layers when the model runs."""

SMALLEST_BLOCK, LARGEST_BLOCK = 16, 256
"""MatMulNBits takes blocks of a power of two, between these sizes."""


def reject(scheme: Scheme | None, lowering: LoweringName) -> str | None:
    """Why this lowering cannot carry this scheme, or None when it can.

    Args:
        scheme: Scheme of the model to export; None for a float model.
        lowering: Lowering asked for.
    """
    if lowering == "auto":
        return None
    if scheme is None:
        if lowering == "float":
            return None
        return f"a float model has no integers for the lowering '{lowering}'; use float or auto"
    if lowering == "float":
        return (
            f"scheme '{scheme.name}' is quantized and the lowering 'float' would throw its "
            "integers away; use auto, nbits or integer"
        )
    weight = scheme.weight
    if lowering == "integer":
        if scheme.activation is None:
            return (
                f"the lowering 'integer' multiplies integers by integers, and scheme "
                f"'{scheme.name}' keeps activations in float; use nbits or auto"
            )
        if weight.group_size is not None:
            return (
                f"the lowering 'integer' takes one scale an output feature, and scheme "
                f"'{scheme.name}' has groups of {weight.group_size}; use nbits or auto"
            )
    group = weight.group_size
    if (
        lowering == "nbits"
        and group is not None
        and (not SMALLEST_BLOCK <= group <= LARGEST_BLOCK or group & (group - 1))
    ):
        return (
            f"the lowering 'nbits' takes groups of a power of two from {SMALLEST_BLOCK} to "
            f"{LARGEST_BLOCK}, and scheme '{scheme.name}' has groups of {group}"
        )
    return None


def choose(scheme: Scheme | None, has_vnni: bool) -> Lowering:
    """The lowering that ``auto`` stands for on a machine.

    With VNNI, MatMulNBits is the faster form in prefill and decode; without it, MatMulInteger on
    unsigned codes is meant to be the faster in prefill. ``nox -s bench`` measures both here.

    Args:
        scheme: Scheme of the model to export; None for a float model.
        has_vnni: Whether the CPU multiplies unsigned by signed bytes without saturating.
    """
    if scheme is None:
        return "float"
    if not has_vnni and reject(scheme, "integer") is None and scheme.weight.bits > 4:
        return "integer"
    return "nbits"
