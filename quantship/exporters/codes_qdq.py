"""Read the integers of standard operators back: of DequantizeLinear, and of an embedding's look-up.

As ``codes``, which uses it, this is written against the operators' definitions.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from quantship.exporters.constants import constant

Array = NDArray[Any]
READ = ("DequantizeLinear", "Cast", "Transpose")
"""What may use the codes of a matrix of shape (in, out)."""


class Read(NamedTuple):
    """Signed codes (O, I), scales and zero points (O, G), and the grid of a static input."""

    codes_OI: Array
    scale_OG: Array
    zero_OG: Array
    input_grid: tuple[float, float] | None = None


class _LookUp(NamedTuple):
    """Numbers of which a Gather takes rows."""

    rows: Array
    ids: ir.Value | None
    shape: list[int] | None
    """What the rows of one token are brought to."""


def read(node: ir.Node, rows: tuple[int, int]) -> list[Read | None]:
    """What each layer behind a user of codes makes of them; None: no known matrix.

    Args:
        node: The user.
        rows: First row and the row after the last of the matrix in question.
    """
    if node.op_type != "DequantizeLinear":
        return [_embedding(product) for product in _products(node)]
    users = node.outputs[0].uses()
    return [_multiplied(node, user, index, slice(*rows)) for user, index in users]


def _multiplied(weight: ir.Node, user: ir.Node, index: int, rows: slice) -> Read | None:
    found = _dequantized(weight)
    if found is None or user.op_type != "MatMul" or index != 1:
        return None
    restored = _producer(user, 0, "DequantizeLinear")
    rounded = None if restored is None else _producer(restored, 0, "QuantizeLinear")
    if restored is None or rounded is None:
        return found
    if not all(_same(rounded, restored, index) for index in (1, 2)):
        return None
    scale, zero = _number(restored, 1), _number(restored, 2)
    if scale is None or zero is None:
        return found
    grid = float(scale), float(zero) - (128 if zero.dtype == np.uint8 else 0)
    # On a scale of 1 are a token's codes, of which a shift may be missing.
    if scale == 1 and not all(corrects(node, found, rows) for node, _ in user.outputs[0].uses()):
        return None
    return found._replace(input_grid=grid)


def _dequantized(node: ir.Node) -> Read | None:
    codes, scales, zeros = (_number(node, index) for index in range(3))
    if codes is None or scales is None:
        return None
    middle = 128 if codes.dtype == np.uint8 else 0
    zeros = np.zeros(scales.shape, np.int16) if zeros is None else zeros.astype(np.int16)
    if "block_size" in node.attributes:
        blocks = node.attributes["block_size"].as_int()
        shape = (codes.shape[0] // blocks, codes.shape[1])
        if _axis(node) != 0 or codes.shape[0] % blocks or not scales.shape == zeros.shape == shape:
            return None
    else:
        if _axis(node) != 1 or not scales.shape == zeros.shape == codes.shape[1:]:
            return None
        scales, zeros = scales[None], zeros[None]
    return Read(codes.T.astype(np.int16) - middle, scales.T, zeros.T - middle)


def corrects(node: ir.Node, matrix: Read, rows: slice) -> bool:
    """Whether a node behind a product, if it adds a token's shift, does so with the right sums."""
    if node.op_type != "Add":
        return True
    for value in node.inputs:
        shifting = None if value is None else value.producer()
        if shifting is not None and shifting.op_type == "Mul":
            numbers = [_number(shifting, index) for index in range(2)]
            centred_OI = matrix.codes_OI[rows].astype(np.int64) - matrix.zero_OG[rows]
            scale_O = matrix.scale_OG[rows, 0].astype(np.float64)
            expected = (centred_OI.sum(axis=1) * scale_O).astype(np.float32)
            vectors = [one for one in numbers if one is not None and one.ndim == 1]
            if not any(np.array_equal(one[rows], expected) for one in vectors):
                return False
    return True


def _products(node: ir.Node) -> Iterator[ir.Node]:
    """Where what is looked up is multiplied by its scales."""
    for user, _ in node.outputs[0].uses():
        if user.op_type in ("Cast", "Transpose", "Gather", "Reshape", "Sub"):
            yield from _products(user)
        else:
            yield user


def _embedding(product: ir.Node) -> Read | None:
    if product.op_type != "Mul":
        return None
    rows, scales = product.inputs
    centring = None if rows is None else rows.producer()
    zeros = None
    if centring is not None and centring.op_type == "Sub":
        rows, zeros = centring.inputs
    found = [_looked_up(value) for value in (rows, scales, zeros or scales)]
    if any(one is None or one.ids is not found[0].ids for one in found):  # type: ignore[union-attr]
        return None
    codes, scale, zero = (one for one in found if one is not None)
    groups = scale.rows.shape[1]
    width = codes.rows.shape[1] // groups
    blocked = [[0, 0, groups, width], [0, 0, groups, 1], [0, 0, groups, 1]]
    if [one.shape for one in (codes, scale, zero)] not in (blocked, [None] * 3):
        return None
    zero_OG = np.zeros_like(scale.rows) if zeros is None else zero.rows
    if (codes.shape is None and groups > 1) or zero_OG.shape != scale.rows.shape:
        return None
    return Read(codes.rows.astype(np.int16), scale.rows, zero_OG.astype(np.int16))


def _looked_up(value: ir.Value | None) -> _LookUp | None:
    """The numbers behind a Gather of whole rows, whatever is done to the rows afterwards."""
    shape = None
    node = None if value is None else value.producer()
    while node is not None and node.op_type in ("Cast", "Reshape"):
        if node.op_type == "Reshape":
            shape_1 = _number(node, 1)
            shape = None if shape_1 is None else shape_1.tolist()
        node = None if node.inputs[0] is None else node.inputs[0].producer()
    if node is None or node.op_type != "Gather" or _axis(node) != 0:
        return None
    rows = _number(node, 0)
    return None if rows is None or rows.ndim != 2 else _LookUp(rows, node.inputs[1], shape)


def _axis(node: ir.Node) -> int:
    default = 1 if node.op_type == "DequantizeLinear" else 0
    return node.attributes["axis"].as_int() if "axis" in node.attributes else default


def _number(node: ir.Node, index: int) -> Array | None:
    """Constant input of a node."""
    return constant(node.inputs[index]) if index < len(node.inputs) else None


def _same(one: ir.Node, other: ir.Node, index: int) -> bool:
    """Whether an input of two nodes is the same in every run."""
    if one.inputs[index] is other.inputs[index]:
        return True
    ours, theirs = _number(one, index), _number(other, index)
    return ours is not None and theirs is not None and np.array_equal(ours, theirs)


def _producer(node: ir.Node, index: int, op_type: str) -> ir.Node | None:
    value = node.inputs[index]
    producer = None if value is None else value.producer()
    return producer if producer is not None and producer.op_type == op_type else None
