"""Read the integers back out of an ONNX file and hold them against a checkpoint's.

This is written against the operators' definitions, not against the code that emits them, so that a
mistake there is found here. What a matrix is, the nodes that use it say: widths, blocks, scales and
zero points are theirs.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

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


class _Matrix(NamedTuple):
    """What a node makes of its inputs: signed codes (O, I), scales and zero points (O, blocks)."""

    codes_OI: Array
    scale_OG: Array
    zero_OG: Array


def compare(model_dir: Path, checkpoint_dir: Path) -> CodeComparison:
    """Compare every quantized matrix of a checkpoint with its place in an ONNX model."""
    stored = checkpoint.load_codes(checkpoint_dir)
    model = ir.load(model_dir / MODEL_FILE)
    places = metadata(model).get("places", {})
    different = [
        name
        for name, part in stored.items()
        if name not in places or not _same(part, Place(**places[name]), model.graph)
    ]
    return CodeComparison(len(stored), tuple(different))


def metadata(model: ir.Model) -> dict[str, Any]:
    """What quantship wrote into a model's metadata; empty for models from elsewhere."""
    parsed: dict[str, Any] = json.loads(model.metadata_props.get(METADATA, "{}"))
    return parsed


def _same(part: StoredCodes, place: Place, graph: ir.Graph) -> bool:
    value = graph.initializers.get(place.codes)
    users = [] if value is None else [node for node, _ in value.uses()]
    return bool(users) and all(_node_holds(node, part, place, graph) for node in users)


def _node_holds(node: ir.Node, part: StoredCodes, place: Place, graph: ir.Graph) -> bool:
    width = part.codes.codes_OI.shape[1]
    if node.op_type == "MatMulNBits":
        if node.attributes["K"].as_int() != width or part.input_grid is not None:
            return False
        return _equal(_in_blocks(node, _number(node, 1), 2), part, place.rows)
    if node.op_type == "Reshape":  # of an embedding, to rows
        lookups = [user for user, _ in node.outputs[0].uses()]
        return all(
            lookup.op_type == "GatherBlockQuantized"
            and _equal(_in_blocks(lookup, _number(node, 0), 2), part, place.rows)
            for lookup in lookups
        )
    scales = graph.initializers.get(place.scales)
    if node.op_type != "MatMulInteger" or scales is None or not _scaled_by(node, scales):
        return False
    return _equal(_by_rows(node, scales), part, place.rows) and (
        part.input_grid is None or _static_input(node) == _grid(part)
    )


def _in_blocks(node: ir.Node, blocks: Array | None, scales_at: int) -> _Matrix | None:
    """The matrix of a MatMulNBits or GatherBlockQuantized node."""
    bits, block = node.attributes["bits"].as_int(), node.attributes["block_size"].as_int()
    scale_OG, zeros = _number(node, scales_at), _number(node, scales_at + 1)
    if blocks is None or scale_OG is None:
        return None
    num_out, num_blocks = scale_OG.shape
    codes_OI = _unpack(blocks.reshape(num_out, -1), bits)[:, : num_blocks * block]
    zero_OG = np.zeros((num_out, num_blocks), np.int16)
    if zeros is not None:
        zero_OG = _unpack(zeros.reshape(num_out, -1), bits)[:, :num_blocks]
    return _Matrix(codes_OI, scale_OG, zero_OG)


def _by_rows(node: ir.Node, scales: ir.Value) -> _Matrix | None:
    """The matrix of a MatMulInteger node and the scales after it."""
    raw_IO, zeros = _number(node, 1), _number(node, 3)
    scale_O = _constant(scales)
    if raw_IO is None or zeros is None or scale_O is None:
        return None
    zero_O1 = np.broadcast_to(zeros.astype(np.int16) - 128, scale_O.shape)[:, None]
    return _Matrix(raw_IO.T.astype(np.int16) - 128, scale_O[:, None], zero_O1)


def _equal(found: _Matrix | None, part: StoredCodes, rows: tuple[int, int]) -> bool:
    if found is None:
        return False
    codes_OI, scale_OG, zero_OG = part.codes
    width = codes_OI.shape[1]
    zero = np.zeros((1, 1), np.int16) if zero_OG is None else zero_OG.numpy()
    return (
        np.array_equal(found.codes_OI[slice(*rows), :width], codes_OI.numpy())
        and _equal_by_blocks(found.scale_OG[slice(*rows)], scale_OG.float().numpy())
        and _equal_by_blocks(found.zero_OG[slice(*rows)], zero)
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
    return _constant(node.inputs[index]) if index < len(node.inputs) else None


def _constant(value: ir.Value | None) -> Array | None:
    """What a value is in every run, be it stored in another width; None where runs differ."""
    if value is None:
        return None
    if value.const_value is not None:
        return value.const_value.numpy()
    producer = value.producer()
    if producer is not None and producer.op_type == "Constant":
        return producer.attributes["value"].as_tensor().numpy()
    if producer is not None and producer.op_type == "Cast":
        stored = _number(producer, 0)
        kind = ir.DataType(producer.attributes["to"].as_int())
        return None if stored is None else stored.astype(kind.numpy())
    return None


def _unpack(packed: Array, bits: int) -> Array:
    """Signed codes of rows of bytes: low half byte first, the middle of the range for zero."""
    bytes_ = packed.astype(np.int16)
    if bits == 8:
        return bytes_ - 128
    unpacked = np.empty((bytes_.shape[0], bytes_.shape[1] * 2), np.int16)
    unpacked[:, 0::2], unpacked[:, 1::2] = bytes_ & 15, bytes_ >> 4
    return unpacked - 8
