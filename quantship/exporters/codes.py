"""Read the integers back out of an ONNX file and hold them against a checkpoint's.

This is written against the operators' definitions, not against the code that emits them, so that a
mistake there is found here. What a matrix is, the nodes that use it say: widths, blocks, scales and
zero points are theirs.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from quantship.exporters import codes_qdq
from quantship.exporters.constants import OPERATORS, constant
from quantship.exporters.decoder import MODEL_FILE
from quantship.exporters.graph import Place
from quantship.exporters.hooks import METADATA
from quantship.quant import checkpoint
from quantship.quant.tensors import StoredCodes

Array = NDArray[Any]
INTEGER_TAIL = ("Cast", "Mul", "Add")
"""What may come between MatMulInteger and the layer's output."""


@dataclass(frozen=True)
class CodeComparison:
    """Outcome of holding an ONNX model's integers against a checkpoint's.

    Args:
        tensors_compared: Quantized matrices found in the checkpoint, each compared.
        different: Names of those whose codes, scales, zero points or static input range differ in
            any bit, or that are missing.
    """

    tensors_compared: int
    different: tuple[str, ...]

    @property
    def equal(self) -> bool:
        """Every matrix of the checkpoint is in the ONNX model, to the bit."""
        return self.tensors_compared > 0 and not self.different


class Matrix(NamedTuple):
    """What a node makes of its inputs: signed codes (O, I), scales and zero points (O, blocks)."""

    codes_OI: Array
    scale_OG: Array
    zero_OG: Array
    input_grid: tuple[float, float] | None = None
    """Scale and signed zero point with which its other input is quantized, where they are fixed."""


def compare(model_dir: Path, checkpoint_dir: Path) -> CodeComparison:
    """Compare every quantized matrix of a checkpoint with its place in an ONNX model."""
    return compare_with(model_dir, checkpoint.load_codes(checkpoint_dir))


def compare_with(model_dir: Path, stored: Mapping[str, StoredCodes]) -> CodeComparison:
    """Compare quantized matrices, by layer name, with their places in an ONNX model."""
    model = ir.load(model_dir / MODEL_FILE)
    places = metadata(model).get("places", {})
    different = [
        name
        for name, part in stored.items()
        if name not in places or not same(part, Place(**places[name]), model.graph)
    ]
    return CodeComparison(len(stored), tuple(different))


def metadata(model: ir.Model) -> dict[str, Any]:
    """What quantship wrote into a model's metadata; empty for models from elsewhere."""
    parsed: dict[str, Any] = json.loads(model.metadata_props.get(METADATA, "{}"))
    return parsed


def matrices(place: Place, graph: ir.Graph) -> list[Matrix | None]:
    """What each node that uses the codes of a place makes of them; None: no known matrix."""
    value = graph.initializers.get(place.codes)
    if value is None:
        return []
    users = (node for node, _ in value.uses())
    readers = _readers(value) if place.form == "nbits" else users
    found = [matrix for node in readers for matrix in _read(node, place, graph)]
    return [None if matrix is None else _cut(matrix, place) for matrix in found]


def same(part: StoredCodes, place: Place, graph: ir.Graph) -> bool:
    """Whether all nodes that use the codes of a place make a checkpoint's matrix of them."""
    found = matrices(place, graph)
    return bool(found) and all(matrix is not None and _equal(matrix, part) for matrix in found)


def _readers(value: ir.Value) -> Iterator[ir.Node]:
    """The nodes that work with a constant, be it after others have turned or widened it."""
    for node, _ in value.uses():
        others = (one for one in node.inputs if one is not value)
        if node.op_type in OPERATORS and all(constant(one) is not None for one in others):
            yield from _readers(node.outputs[0])
        else:
            yield node


def _read(node: ir.Node, place: Place, graph: ir.Graph) -> list[Matrix | None]:
    if node.op_type == "MatMulNBits":
        fits = node.attributes["K"].as_int() == place.in_features
        return [_in_blocks(node, _number(node, 1), 2, place) if fits else None]
    if node.op_type == "GatherBlockQuantized":
        return [_in_blocks(node, _number(node, 0), 2, place)]
    if node.op_type == "QGemm":
        return [_qgemm(node, slice(*place.rows))]
    if node.op_type == "Mul" and place.form == "nbits":
        return []  # of sums of codes, by which products are corrected: `_qgemm` looks at them
    if node.op_type in codes_qdq.READ:
        return [None if one is None else Matrix(*one) for one in codes_qdq.read(node, place.rows)]
    scales = graph.initializers.get(place.scales)
    multiplies = node.op_type in ("MatMulInteger", "ConvInteger")
    if not multiplies or scales is None or not _scaled_by(node, scales):
        return [None]
    return [_by_rows(node, scales)]


def _cut(matrix: Matrix, place: Place) -> Matrix:
    """The rows that a place names, without padding."""
    codes_OI, scale_OG, zero_OG = (one[slice(*place.rows)] for one in matrix[:3])
    return Matrix(codes_OI[:, : place.in_features], scale_OG, zero_OG, matrix.input_grid)


def _in_blocks(node: ir.Node, blocks: Array | None, scales_at: int, place: Place) -> Matrix | None:
    """The matrix of a MatMulNBits or GatherBlockQuantized node."""
    bits, block = node.attributes["bits"].as_int(), node.attributes["block_size"].as_int()
    scale_OG, zeros = _number(node, scales_at), _number(node, scales_at + 1)
    if blocks is None or scale_OG is None:
        return None
    num_out, num_blocks = scale_OG.shape
    codes_OI = _unpack(blocks.reshape(num_out, -1), bits)[:, : num_blocks * block]
    zero_OG = np.full((num_out, num_blocks), 1 << (bits - 1), np.int16)
    if zeros is not None:
        zero_OG = _unpack(zeros.reshape(num_out, -1), bits)[:, :num_blocks]
    middle = 1 << (place.container_bits - 1)  # of the stored codes, which a node may have widened
    return Matrix(codes_OI - middle, scale_OG, zero_OG - middle)


def _by_rows(node: ir.Node, scales: ir.Value) -> Matrix | None:
    """The matrix of a MatMulInteger or ConvInteger node and the scales after it."""
    raw, zeros, scaling = _number(node, 1), _number(node, 3), constant(scales)
    if raw is None or zeros is None or scaling is None:
        return None
    scale_O = scaling.reshape(-1)
    raw_OI = raw.reshape(len(raw), -1) if node.op_type == "ConvInteger" else raw.T
    zero_O1 = np.broadcast_to(zeros.astype(np.int16) - 128, scale_O.shape)[:, None]
    codes_OI = raw_OI.astype(np.int16) - 128
    return Matrix(codes_OI, scale_O[:, None], zero_O1, _static_input(node))


def _qgemm(node: ir.Node, rows: slice) -> Matrix | None:
    """The matrix of a QGemm node, whose second factor is turned."""
    raw_OI, scale_O, zero_O = (_number(node, index) for index in (3, 4, 5))
    turns = "transB" in node.attributes and node.attributes["transB"].as_int() == 1
    if raw_OI is None or scale_O is None or zero_O is None or not turns:
        return None
    middle = 128 if raw_OI.dtype == np.uint8 else 0
    found = codes_qdq.Read(
        raw_OI.astype(np.int16) - middle,
        scale_O[:, None],
        zero_O.astype(np.int16)[:, None] - middle,
    )
    users = (user for user, _ in node.outputs[0].uses())
    right = all(codes_qdq.corrects(user, found, rows) for user in users)
    return Matrix(*found[:3]) if right else None


def _equal(found: Matrix, part: StoredCodes) -> bool:
    codes_OI, scale_OG, zero_OG = part.codes
    zero = np.zeros((1, 1), np.int16) if zero_OG is None else zero_OG.numpy()
    return (
        np.array_equal(found.codes_OI, codes_OI.numpy())
        and _equal_by_blocks(found.scale_OG, scale_OG.float().numpy())
        and _equal_by_blocks(found.zero_OG, zero)
        and (part.input_grid is None or found.input_grid == _grid(part))
    )


def _equal_by_blocks(found: Array, expected: Array) -> bool:
    """Whether numbers are equal where one may stand for several rows or blocks."""
    rows, blocks = (one // other for one, other in zip(found.shape, expected.shape, strict=True))
    repeated = np.repeat(np.repeat(expected, rows, axis=0), blocks, axis=1)
    return np.array_equal(found, repeated)


def _scaled_by(node: ir.Node, scales: ir.Value) -> bool:
    """Whether products of MatMulInteger are multiplied by these scales, or by a multiple."""
    factors = {scales, *(user.outputs[0] for user, _ in scales.uses() if user.op_type == "Mul")}
    return any(after.op_type == "Mul" and factors & set(after.inputs) for after in _tail(node))


def _tail(node: ir.Node) -> Iterator[ir.Node]:
    """The nodes that finish a layer after MatMulInteger."""
    for user, _ in node.outputs[0].uses():
        if user.op_type in INTEGER_TAIL:
            yield user
            yield from _tail(user)


def _static_input(node: ir.Node) -> tuple[float, float] | None:
    """Scale and signed zero point with which a layer's input is quantized, where they are fixed."""
    rounding = _producer(node, 0, "QuantizeLinear")
    scaled = None if rounding is None else _producer(rounding, 0, "Mul")
    inverse = None if scaled is None else _producer(scaled, 1, "Reciprocal")
    if rounding is None or inverse is None:
        return None
    scale, step, zero = _number(inverse, 0), _number(rounding, 1), _number(rounding, 2)
    subtracted = _number(node, 2)
    if scale is None or zero is None or subtracted is None or step != 1 or zero != subtracted:
        return None
    return float(scale), float(zero) - 128


def _grid(part: StoredCodes) -> tuple[float, float]:
    assert part.input_grid is not None
    scale, zero = part.input_grid
    return float(scale), 0.0 if zero is None else float(zero)


def _producer(node: ir.Node, index: int, op_type: str) -> ir.Node | None:
    value = node.inputs[index]
    producer = None if value is None else value.producer()
    return producer if producer is not None and producer.op_type == op_type else None


def _number(node: ir.Node, index: int) -> Array | None:
    """Constant input of a node."""
    return constant(node.inputs[index]) if index < len(node.inputs) else None


def _unpack(packed: Array, bits: int) -> Array:
    """Unsigned codes of rows of bytes: low half byte first."""
    bytes_ = packed.astype(np.int16)
    if bits == 8:
        return bytes_
    unpacked = np.empty((bytes_.shape[0], bytes_.shape[1] * 2), np.int16)
    unpacked[:, 0::2], unpacked[:, 1::2] = bytes_ & 15, bytes_ >> 4
    return unpacked
