"""What a value of an ONNX graph is in every run, be it stored or computed from what is stored.

Written against the operators' definitions: it is what reads codes back, so it shares nothing with
the code that emits them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

Array = NDArray[Any]


def constant(value: ir.Value | None) -> Array | None:
    """The numbers of a value; None where they depend on the model's inputs, or there is none."""
    if value is None:
        return None
    if value.const_value is not None:
        return value.const_value.numpy()
    node = value.producer()
    if node is None:
        return None
    if node.op_type == "Constant":
        return node.attributes["value"].as_tensor().numpy()
    compute = OPERATORS.get(node.op_type)
    inputs = [constant(one) for one in node.inputs] if compute is not None else [None]
    if compute is None or any(one is None for one in inputs):
        return None
    return compute(node, *inputs)


def _cast(node: ir.Node, x: Array) -> Array:
    return x.astype(ir.DataType(node.attributes["to"].as_int()).numpy())


def _transpose(node: ir.Node, x: Array) -> Array:
    return x.transpose(node.attributes["perm"].as_ints())


def _slice(node: ir.Node, x: Array, starts: Array, ends: Array, axes: Array) -> Array:
    for start, end, axis in zip(starts, ends, axes, strict=True):
        x = np.moveaxis(np.moveaxis(x, axis, 0)[start:end], 0, axis)
    return x


def _concat(node: ir.Node, *parts: Array) -> Array:
    return np.concatenate(parts, axis=node.attributes["axis"].as_int())


def _shift(node: ir.Node, x: Array, by: Array) -> Array:
    left = node.attributes["direction"].as_string() == "LEFT"
    return np.left_shift(x, by) if left else np.right_shift(x, by)


def _matmul_integer(node: ir.Node, a: Array, b: Array, a_zero: Array, b_zero: Array) -> Array:
    """Of zero points that are one for all."""
    return np.asarray((a.astype(np.int32) - a_zero) @ (b.astype(np.int32) - b_zero))


OPERATORS: dict[str, Callable[..., Array]] = {
    "Add": lambda node, a, b: a + b,
    "BitShift": _shift,
    "BitwiseAnd": lambda node, a, b: a & b,
    "BitwiseXor": lambda node, a, b: a ^ b,
    "Cast": _cast,
    "Concat": _concat,
    "Expand": lambda node, x, shape: np.array(x * np.ones(shape, x.dtype)),
    "MatMulInteger": _matmul_integer,
    "Mul": lambda node, a, b: a * b,
    "Reshape": lambda node, x, shape: x.reshape(shape),
    "Slice": _slice,
    "Sub": lambda node, a, b: a - b,
    "Transpose": _transpose,
    "Unsqueeze": lambda node, x, axes: np.expand_dims(x, tuple(axes.tolist())),
}
"""What is computed from constants in graphs of quantship."""
