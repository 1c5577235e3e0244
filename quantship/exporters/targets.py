"""The machines that an ONNX model can be lowered for, and what decides between lowerings there."""

from __future__ import annotations

from typing import Literal

from quantship import hardware

TargetName = Literal["this-machine", "x86", "x86-vnni", "arm", "cuda", "portable"]
"""As a recipe says it.

``x86`` is AVX2 or AVX-512 without VNNI: products of unsigned by signed bytes saturate there.
``portable`` stands for every runtime that reads standard QuantizeLinear and DequantizeLinear.
"""
Target = Literal["x86", "x86-vnni", "arm", "cuda", "portable"]
"""As an export needs it."""


def resolve(name: TargetName) -> Target:
    """The target that a name stands for here; ``this-machine`` is the CPU of this machine."""
    return hardware.kind() if name == "this-machine" else name


def multiplies_signed_exactly(target: Target) -> bool:
    """Whether unsigned inputs times signed weights are exact in ONNX Runtime's kernels there."""
    return target in ("x86-vnni", "arm")
