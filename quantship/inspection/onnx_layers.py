"""Quantized weights of an ONNX graph: each stored once, with everyone who reads it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx_ir as ir

from quantship.inspection import activations, grids, onnx_scales
from quantship.inspection.grids import Sharing
from quantship.inspection.onnx_operators import FLOAT_READERS, IN_BLOCKS, READINGS, Reading
from quantship.inspection.onnx_values import (
    Stored,
    input_of,
    integer_type,
    is_as_stored,
    readers,
    stored,
)
from quantship.inspection.report import Use

QDQ = "DequantizeLinear → "


@dataclass
class Codes:
    """One stored matrix of codes.

    Args:
        codes: The tensor.
        bits: Bits that a code takes in the file.
        parts: Names of all tensors that belong to it, the codes among them.
        scale: Scales, the first that were found.
        zero: Zero points.
        shape: Logical, (out features, in features) where the operator says so.
        sharing: What shares a scale.
        symmetric: Whether the zero points are those of a symmetric grid.
        bits_used: Bits of a code.
        uses: Everyone who reads it.
        as_stored: Whether all this is said by a reader of the codes as they are stored.
    """

    codes: Stored
    bits: int
    parts: set[str]
    scale: Stored | None
    zero: Stored | None
    shape: tuple[int, ...]
    sharing: Sharing
    symmetric: bool | None
    bits_used: int
    uses: list[Use] = field(default_factory=list)
    as_stored: bool = True

    @property
    def num_parameters(self) -> int:
        """Codes without padding."""
        return int(np.prod(self.shape, dtype=np.int64))


def find(model: ir.Model) -> dict[str, Codes]:
    """All quantized weights of a model, by the name of the tensor that holds the codes."""
    found: dict[str, Codes] = {}
    for node in model.graph.all_nodes():
        for one, use in _of_node(node):
            known = found.setdefault(one.codes.name, one)
            if _says_more(one, known):
                one.uses, one.parts = known.uses, known.parts | one.parts
                known = found[one.codes.name] = one
            known.uses.append(use)
            known.parts |= one.parts
    return found


def _says_more(one: Codes, known: Codes) -> bool:
    """Whether a reader knows codes better: as they are stored, without padding, with scales."""

    def rank(codes: Codes) -> tuple[Any, ...]:
        unknown = codes.sharing.granularity == "unknown"
        return unknown, not codes.as_stored, codes.bits, codes.num_parameters

    return rank(one) < rank(known)


def forms(model: ir.Model, codes: Iterable[str]) -> dict[str, str]:
    """Codes by the names of all values that are them in another form, as after a Reshape."""
    wanted = set(codes)
    found: dict[str, str] = {}
    for node in model.graph.all_nodes():
        origin = stored(node.outputs[0])
        if origin is not None and origin.name in wanted and node.outputs[0].name:
            found[node.outputs[0].name] = origin.name
    return found


def readers_of_codes(model: ir.Model) -> dict[str, list[str]]:
    """Operators that read each quantized tensor, by its name; no tensor is read for that."""
    found: dict[str, list[str]] = {}
    for node in model.graph.all_nodes():
        for reading in READINGS.get((node.domain, node.op_type), ()):
            codes = stored(input_of(node, reading.codes))
            if codes is not None and not _is_computed_beforehand(node, reading):
                found.setdefault(codes.name, []).append(node.op_type)
        if node.op_type == "DequantizeLinear":
            codes = stored(input_of(node, 0))
            if codes is not None:
                uses = [f"{QDQ}{reader.op_type}" for reader, _ in readers(node.outputs[0])]
                found.setdefault(codes.name, []).extend(uses or [node.op_type])
    return found


def _is_computed_beforehand(node: ir.Node, reading: Reading) -> bool:
    """Whether both factors are stored, as where the sums of codes are computed."""
    return stored(input_of(node, reading.input)) is not None


def _of_node(node: ir.Node) -> Iterator[tuple[Codes, Use]]:
    if node.op_type == "DequantizeLinear":
        yield from _dequantized(node)
    if node.op_type == "Gather":
        yield from _looked_up(node)
    for reading in READINGS.get((node.domain, node.op_type), ()):
        codes = stored(input_of(node, reading.codes))
        if codes is None or _is_computed_beforehand(node, reading):
            continue
        scale = onnx_scales.of_matrix(node, reading, codes)
        zero = stored(input_of(node, reading.zero))
        blocks = node.op_type in IN_BLOCKS
        one = (
            _in_blocks(node, codes, scale, zero) if blocks else _plain(reading, codes, scale, zero)
        )
        if not is_as_stored(node.inputs[reading.codes]):
            one.as_stored, one.symmetric = False, None  # zero points are those of other codes
        words, dtype = activations.treatment(node, reading)
        level = activations.accuracy_level(node) if node.op_type == "MatMulNBits" else None
        use = Use(
            operator=node.op_type,
            node=node.name or node.outputs[0].name or "",
            does=reading.does,
            activation=words,
            input_dtype=dtype,
            weight_dtype=integer_type(node.inputs[reading.codes]),
            accuracy_level=level,
        )
        yield one, use


def _in_blocks(node: ir.Node, codes: Stored, scale: Stored | None, zero: Stored | None) -> Codes:
    given = {name: one.as_int() for name, one in node.attributes.items() if _is_int(one)}
    stored_bits = int(codes.tensor.dtype.itemsize * 8)
    packed = codes.dtype in ("uint8", "int8")
    bits = given.get("bits", given.get("expert_weight_bits", 4)) if packed else stored_bits
    block = given.get("block_size", 0)
    numbers = codes.size * stored_bits // bits
    if "N" in given and "K" in given:
        shape: tuple[int, ...] = (given["N"], given["K"])
    elif scale is not None and node.op_type == "GatherBlockQuantized":
        num_rows = int(np.prod(scale.shape[:-1]))  # codes may come through a Reshape
        shape = (num_rows, numbers // max(num_rows, 1))
    else:
        shape = (*codes.shape[:-1], codes.shape[-1] * stored_bits // bits)
    num_rows = int(np.prod(shape[:-1]))
    sharing = grids.shared_by_blocks(scale, num_rows, block or shape[-1], shape[-1])
    signed = codes.tensor.dtype.is_signed()
    return Codes(
        codes=codes,
        bits=bits,
        parts=_names(codes, scale, zero),
        scale=scale,
        zero=zero,
        shape=shape,
        sharing=sharing,
        symmetric=grids.is_symmetric(zero, bits, signed=signed, middle_default=True),
        bits_used=grids.bits_in_use(codes, bits, sharing),
    )


def _plain(reading: Reading, codes: Stored, scale: Stored | None, zero: Stored | None) -> Codes:
    bits = int(codes.tensor.dtype.itemsize * 8)
    shape = codes.shape
    if scale is not None and len(shape) == 2 and scale.size == 2 * shape[1] != shape[0]:
        bits, shape = 4, (shape[0], 2 * shape[1])  # nodes unpack two a byte
    turned = reading.transposed and len(shape) == 2
    signed = codes.tensor.dtype.is_signed()
    return Codes(
        codes=codes,
        bits=bits,
        parts=_names(codes, scale, zero),
        scale=scale,
        zero=zero,
        shape=shape[::-1] if turned else shape,
        sharing=grids.shared(scale, shape),
        symmetric=_middle(zero, bits, signed=signed),
        bits_used=bits,
    )


def _middle(zero: Stored | None, bits: int, *, signed: bool) -> bool:
    """Whether zero points that are never packed stand for the middle."""
    unpacked = bits if zero is None or zero.tensor.dtype.itemsize < 1 else 8
    if zero is not None and bits < unpacked:
        return grids.all_equal(zero, 0 if signed else 1 << (bits - 1))
    return grids.is_symmetric(zero, unpacked, signed=signed, middle_default=False)


def _looked_up(node: ir.Node) -> Iterator[tuple[Codes, Use]]:
    """Rows of codes that later nodes multiply with rows of scales."""
    codes = stored(input_of(node, 0))
    if codes is None or not _may_be_codes(codes):
        return
    scale = onnx_scales.of_rows(node.outputs[0])
    one = _plain(Reading(0), codes, scale, None)
    if scale is not None and scale.size > max(codes.shape):
        one.sharing = Sharing("per_group", codes.size // scale.size)
    words = activations.LOOKED_UP.words
    yield one, Use(operator="Gather", node=node.name or "", does="looks up", activation=words)


def _may_be_codes(tensor: Stored) -> bool:
    """Whether a tensor is a matrix of integers of a byte or less."""
    matrix = sum(size > 1 for size in tensor.shape) > 1
    return matrix and tensor.is_integer and tensor.tensor.dtype.itemsize <= 1


def _dequantized(node: ir.Node) -> list[tuple[Codes, Use]]:
    """The weight of a DequantizeLinear node, and the float operators that it feeds."""
    codes = stored(input_of(node, 0))
    if codes is None or codes.tensor.dtype.itemsize > 1 or codes.size < 2:
        return []  # an activation, or an int32 bias
    scale, zero = stored(input_of(node, 1)), stored(input_of(node, 2))
    bits = int(codes.tensor.dtype.itemsize * 8)
    block = node.attributes.get("block_size")
    made = Codes(
        codes=codes,
        bits=bits,
        parts=_names(codes, scale, zero),
        scale=scale,
        zero=zero,
        shape=codes.shape,
        sharing=grids.shared(scale, codes.shape, 0 if block is None else block.as_int()),
        symmetric=grids.is_symmetric(
            zero, bits, signed=codes.tensor.dtype.is_signed(), middle_default=False
        ),
        bits_used=bits,
    )
    uses = [_float_use(reader, index, codes.dtype) for reader, index in readers(node.outputs[0])]
    nobody = Use(operator="DequantizeLinear", node=node.name or "", does="other", activation="")
    return [(made, use) for use in uses or [nobody]]


def _float_use(node: ir.Node, index: int, dtype: str) -> Use:
    does = {"Gather": "looks up", "Conv": "convolves", "ConvTranspose": "convolves"}.get(
        node.op_type, "multiplies" if node.op_type in FLOAT_READERS else "other"
    )
    given = activations.FLOAT
    if does == "looks up":
        given = activations.LOOKED_UP
    elif does != "other":
        given = activations.of_float(input_of(node, 1 - index if index < 2 else 0))
    return Use(
        operator=f"{QDQ}{node.op_type}",
        node=node.name or node.outputs[0].name or "",
        does=does,  # type: ignore[arg-type]
        activation=given.words,
        input_dtype=given.dtype,
        weight_dtype=dtype,
    )


def _names(*parts: Stored | None) -> set[str]:
    return {part.name for part in parts if part is not None}


def _is_int(attribute: ir.Attr) -> bool:
    return bool(attribute.type == ir.AttributeType.INT)
