"""What a layer's format costs: bits a weight, and bytes in the file of a runtime.

Bits are those of codes, scales and zero points. Files store more than that: onnxruntime's blocks
hold codes of 4 or 8 bits, and torchao packs 4-bit codes only, where they are symmetric, in groups,
and inputs stay in float. All else takes a byte a code, so that fewer bits save nothing there.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from quantship.exporters.lowering import SMALLEST_BLOCK
from quantship.exporters.nbits import FINE_BLOCK
from quantship.quant.choices import Layer, bits_of
from quantship.quant.scheme import LayerFormat, packs
from quantship.quant.tensors import SMALLEST_WIDE_GROUP

RuntimeName = Literal["onnxruntime", "torchao"]


def bits(layers: Sequence[Layer]) -> dict[str, dict[str, float]]:
    """Bits of each layer that is chosen for, in each of its formats."""
    return {
        layer.name: {
            name: bits_of(format.weight, layer.num_out, layer.num_in)
            for name, format in layer.formats.items()
        }
        for layer in layers
        if layer.is_chosen
    }


def stored_bytes(layer: Layer, runtime: RuntimeName) -> dict[str, float]:
    """Bytes of a layer in a runtime's file, in each of its formats."""
    of = in_checkpoint if runtime == "torchao" else in_onnx
    return {name: of(format, layer.num_out, layer.num_in) for name, format in layer.formats.items()}


def in_checkpoint(format: LayerFormat, num_out: int, num_in: int) -> float:
    """Bytes of a matrix in a torchao checkpoint."""
    groups = _groups(format, num_out, num_in)
    if packs(format):
        group = format.weight.group_size
        assert group is not None
        zero = 2 if group >= SMALLEST_WIDE_GROUP else 1
        return num_out * num_in / 2 + groups * (2 + zero)
    return num_out * num_in + groups * (4 + 1)


def in_onnx(format: LayerFormat, num_out: int, num_in: int) -> float:
    """Bytes of a matrix in an ONNX file, as blocks or one scale a row; indices not counted."""
    fmt = format.weight
    container = 4 if fmt.bits <= 4 else 8
    block = fmt.group_size or _row_block(num_in)
    num_blocks = -(-num_in // block)
    groups = num_out * num_blocks if fmt.group_size else num_out
    narrow = fmt.group_size is not None and fmt.scale_dtype == "bfloat16"
    size = num_out * num_blocks * block * container / 8 + groups * (2 if narrow else 4)
    if not fmt.symmetric:
        size += num_out * -(-num_blocks * container // 8)
    return size


def _groups(format: LayerFormat, num_out: int, num_in: int) -> int:
    fmt = format.weight
    if fmt.granularity == "per_tensor":
        return 1
    return num_out * (num_in // fmt.group_size if fmt.group_size else 1)


def _row_block(num_in: int) -> int:
    block = FINE_BLOCK
    while num_in % block and block > SMALLEST_BLOCK:
        block //= 2
    return block
