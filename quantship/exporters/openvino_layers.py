"""Quantized layers in OpenVINO's operators: integers that are made floats where they are used.

    codes → Convert → (Subtract zeros) → Multiply scales → (Reshape) → MatMul or Gather

is what OpenVINO's plugins take for a compressed weight: no float matrix is made when they run.
Codes of up to 4 bits take half a byte, signed; where there are zero points, codes and these are
unsigned (shifted by half the range). Scales that bfloat16 holds without loss lie in the file as
such.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from quantship.exporters import opaque
from quantship.quant.tensors import StoredCodes

CODES, SCALES, ZEROS = "codes", "scales", "zeros"
"""Ends of the constants' names, after the layer's."""
Array = NDArray[Any]


@dataclass
class Layers:
    """The quantized layers of one graph.

    Args:
        codes: By layer name.
        drawn: Outputs of the weights in the graph, by layer name; layers share what is drawn.
    """

    codes: dict[str, StoredCodes]
    drawn: dict[str, Any] = field(default_factory=dict)

    def names(self) -> list[str]:
        """Layer names; a layer's place among them stands for it in the trace."""
        return list(self.codes)

    def matmul(self, context: Any) -> list[Any]:
        """OpenVINO's form of ``quantship::matrix``."""
        from openvino import opset13 as ops

        part = self._part(context)
        input = context.get_input(0)
        if part.input_grid is not None:
            input = _rounded(input, part)
        return [ops.matmul(input, self._weight(part), False, True).output(0)]

    def rows(self, context: Any) -> list[Any]:
        """OpenVINO's form of ``quantship::rows``."""
        from openvino import opset13 as ops

        weight = self._weight(self._part(context))
        axis = ops.constant(np.array(0, np.int64))
        return [ops.gather(weight, context.get_input(0), axis).output(0)]

    def _part(self, context: Any) -> StoredCodes:
        return self.codes[self.names()[int(context.get_values_from_const_input(1))]]

    def _weight(self, part: StoredCodes) -> Any:
        if part.name not in self.drawn:
            self.drawn[part.name] = _draw(part)
        return self.drawn[part.name]


@contextlib.contextmanager
def drawn(layers: Layers) -> Iterator[None]:
    """Let traces emit operators of quantship's, and OpenVINO's converter draw them."""
    from openvino.frontend.pytorch import ConversionExtension
    from transformers.exporters import exporter_openvino

    _define()
    places = {name: place for place, name in enumerate(layers.names())}

    def emit(operator: str, layer: str, input: Tensor, shape: tuple[Any, ...]) -> Tensor:
        emitted = {opaque.MATRIX: "matrix", opaque.ROWS: "rows"}[operator]
        made: Tensor = getattr(torch.ops.quantship, emitted)(input, places[layer], shape[-1])
        return made

    extensions = exporter_openvino._OV_CONVERSION_EXTENSIONS
    own = [
        ConversionExtension("quantship.matrix.default", layers.matmul),
        ConversionExtension("quantship.rows.default", layers.rows),
    ]
    extensions.extend(own)
    try:
        with opaque.emitting(emit):
            yield
    finally:
        del extensions[-len(own) :]


def _define() -> None:
    """Make the traced operators known to PyTorch, once."""
    if hasattr(torch.ops.quantship, "matrix"):
        return
    for name in ("matrix", "rows"):
        torch.library.define(f"quantship::{name}", "(Tensor input, int place, int width) -> Tensor")

    def matrix(input: Tensor, place: int, width: int) -> Tensor:
        return input.new_empty([*input.shape[:-1], width])

    def rows(input: Tensor, place: int, width: int) -> Tensor:
        return input.new_empty([*input.shape, width], dtype=torch.float32)

    torch.library.register_fake("quantship::matrix", matrix)
    torch.library.register_fake("quantship::rows", rows)


def _draw(part: StoredCodes) -> Any:
    """The numbers that codes stand for, of shape (O, I)."""
    import openvino
    from openvino import opset13 as ops

    codes_OI, scale_OG, zero_OG = part.codes
    (num_out, width), num_groups = codes_OI.shape, scale_OG.shape[1]
    group = width // num_groups
    flat = num_groups == 1
    bits = 4 if part.bits <= 4 else 8
    shifted = zero_OG is not None and bool(zero_OG.any())
    kind = getattr(openvino.Type, f"{'u' if shifted else 'i'}{bits}")
    offset = (1 << (bits - 1)) if shifted else 0
    shape = [num_out, width] if flat else [num_out, num_groups, group]
    ends = [num_out, num_groups] if flat else [num_out, num_groups, 1]
    name = part.name
    codes = _constant(codes_OI.numpy().astype(np.int16) + offset, kind, shape, f"{name}.{CODES}")
    numbers = ops.convert(codes, "f32")
    if shifted:
        assert zero_OG is not None
        zeros_OG = np.broadcast_to(zero_OG.numpy(), (num_out, num_groups)).astype(np.int16)
        zeros = _constant(zeros_OG + offset, kind, ends, f"{name}.{ZEROS}")
        numbers = ops.subtract(numbers, ops.convert(zeros, "f32"))
    scales_OG = scale_OG.float().expand(num_out, num_groups)
    narrow = not flat and torch.equal(scales_OG.bfloat16().float(), scales_OG)
    stored = openvino.Type.bf16 if narrow else openvino.Type.f32
    scales = ops.constant(scales_OG.contiguous().numpy().reshape(ends), dtype=stored)
    scales.set_friendly_name(f"{name}.{SCALES}")
    numbers = ops.multiply(numbers, ops.convert(scales, "f32") if narrow else scales)
    if flat:
        return numbers
    return ops.reshape(numbers, np.array([num_out, width], np.int64), special_zero=False)


def _constant(numbers: Array, kind: Any, shape: list[int], name: str) -> Any:
    """A named constant with memory of its own; 4-bit numbers two a byte, the first one low."""
    import openvino
    from openvino import opset13 as ops

    tensor = openvino.Tensor(kind, openvino.Shape(shape))
    bytes_: Array = numbers.reshape(-1).astype(np.uint8)  # of negative numbers the two's complement
    if kind.bitwidth == 4:
        if bytes_.size % 2:
            bytes_ = np.append(bytes_, np.uint8(0))
        bytes_ = (bytes_[0::2] & 15) | (bytes_[1::2] << 4)
    tensor.data.reshape(-1).view(np.uint8)[:] = bytes_
    constant = ops.constant(tensor)
    constant.set_friendly_name(name)
    return constant


def _rounded(input: Any, part: StoredCodes) -> Any:
    """An input rounded to its static range, in the one operator that plugins run in integers."""
    from openvino import opset13 as ops

    assert part.input_grid is not None
    scale = float(part.input_grid.scale)
    zero = 0.0 if part.input_grid.zero is None else float(part.input_grid.zero)
    low, high = (np.array((code - zero) * scale, np.float32) for code in (-128, 127))
    return ops.fake_quantize(input, low, high, low, high, levels=256)
