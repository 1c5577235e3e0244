"""Where a value comes from and where it goes, past nodes that only change its form."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from quantship.inspection.onnx_file import UNNAMED, constant_of

PASSING = (
    "Cast",
    "CastLike",
    "Expand",
    "Flatten",
    "Identity",
    "Reshape",
    "Slice",
    "Squeeze",
    "Transpose",
    "Unsqueeze",
)
"""Operators that leave the numbers of their first input what they are."""
FOLDED = (
    "Add",
    "BitShift",
    "BitwiseAnd",
    "BitwiseOr",
    "BitwiseXor",
    "Concat",
    "Div",
    "Mod",
    "Mul",
    "Sub",
    "Where",
)
"""Operators that stored codes are unpacked with."""
MANY_NODES = 40
"""How far a search goes before it gives up."""
CHUNK_BYTES = 1 << 24


class Stored(NamedTuple):
    """A tensor of the file, by the name of its value."""

    name: str
    tensor: ir.TensorProtocol

    @property
    def shape(self) -> tuple[int, ...]:
        """Sizes as stored."""
        return tuple(self.tensor.shape.numpy())

    @property
    def size(self) -> int:
        """Numbers in it."""
        return int(np.prod(self.shape, dtype=np.int64))

    @property
    def dtype(self) -> str:
        """As NumPy names it."""
        return dtype_name(self.tensor.dtype)

    @property
    def is_integer(self) -> bool:
        """Whether it holds integers."""
        return self.tensor.dtype.is_integer()


def dtype_name(dtype: ir.DataType | None) -> str:
    """A data type as NumPy names it: ``float32``, ``int4``."""
    if dtype is None:
        return "unknown"
    names = {ir.DataType.FLOAT: "float32", ir.DataType.DOUBLE: "float64"}
    return names.get(dtype, dtype.name.lower())


def stored(value: ir.Value | None, depth: int = MANY_NODES) -> Stored | None:
    """The tensor that a value is, or is made of, in every run; None where runs differ.

    Of several, the largest: nodes without other inputs turn, cut or widen what is stored, and
    runtimes compute them once.
    """
    if value is None or depth == 0:
        return None
    if value.const_value is not None:
        return Stored(value.name or UNNAMED, value.const_value)
    node = value.producer()
    if node is None:
        return None
    tensor = constant_of(node)
    if tensor is not None:
        return Stored(value.name or UNNAMED, tensor)
    if node.op_type in PASSING:
        return stored(node.inputs[0], depth - 1)
    if node.op_type not in FOLDED:
        return None
    parts = [stored(one, depth - 1) for one in node.inputs if one is not None]
    whole = [one for one in parts if one is not None]
    return max(whole, key=lambda one: one.size) if len(whole) == len(parts) and whole else None


def is_as_stored(value: ir.Value | None) -> bool:
    """Whether a value's numbers are those of the file, in another shape at most."""
    for _ in range(MANY_NODES):
        node = None if value is None else value.producer()
        if node is None or constant_of(node) is not None:
            return value is not None
        if node.op_type not in PASSING or node.op_type.startswith("Cast"):
            return False
        value = node.inputs[0]
    return False


def integer_type(value: ir.Value | None) -> str | None:
    """Data type that an operator gets a stored value in; None where it cannot be told."""
    for _ in range(MANY_NODES):
        if value is None:
            return None
        if value.const_value is not None:
            return dtype_name(value.const_value.dtype)
        node = value.producer()
        if node is None:
            return None
        tensor = constant_of(node)
        if tensor is not None:
            return dtype_name(tensor.dtype)
        if node.op_type == "Cast":
            return dtype_name(ir.DataType(node.attributes["to"].as_int()))
        value = input_of(node, 0)
    return None


def input_of(node: ir.Node, index: int | None) -> ir.Value | None:
    """An input of a node; None where it has none there."""
    if index is None or index >= len(node.inputs):
        return None
    return node.inputs[index]


def producer(value: ir.Value | None, *, through: tuple[str, ...] = ()) -> ir.Node | None:
    """The node that makes a value, past nodes of the operators ``through``."""
    for _ in range(MANY_NODES):
        node = None if value is None else value.producer()
        if node is None or node.op_type not in through:
            return node
        value = input_of(node, 0)
    return None


def readers(value: ir.Value) -> Iterator[tuple[ir.Node, int]]:
    """The nodes that use a value, and as which input, past nodes that only change its form."""
    for node, index in value.uses():
        if node.op_type in PASSING and index == 0:
            yield from readers(node.outputs[0])
        else:
            yield node, index


def chunks(
    tensor: ir.TensorProtocol, most_bytes: int = CHUNK_BYTES
) -> Iterator[NDArray[np.generic]]:
    """A tensor's rows, some at a time, so that one larger than memory can be read.

    Args:
        tensor: Any tensor.
        most_bytes: About as much is read at a time; one row at least.
    """
    shape = tensor.shape.numpy()
    dtype = tensor.dtype
    if not isinstance(tensor, ir.ExternalTensor) or not shape or dtype.itemsize < 1:
        yield tensor.numpy()  # in memory already, or small: a zero point of 4 bits
        return
    row_bytes = int(np.prod(shape[1:], dtype=np.int64)) * int(dtype.itemsize)
    step = max(1, most_bytes // max(row_bytes, 1))
    with Path(tensor.path).open("rb") as file:
        file.seek(tensor.offset or 0)
        for start in range(0, shape[0], step):
            count = min(step, shape[0] - start)
            data = file.read(count * row_bytes)
            yield np.frombuffer(data, dtype.numpy()).reshape(count, *shape[1:])


def is_float(dtype: ir.DataType) -> bool:
    """Whether numbers of a type are what weights in float are made of."""
    return bool(dtype.is_floating_point()) and dtype.itemsize >= 2
