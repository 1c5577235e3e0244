"""What becomes of the input of a quantized layer when the model runs, told from its nodes."""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

import onnx_ir as ir

from quantship.inspection.onnx_operators import Reading
from quantship.inspection.onnx_values import (
    MANY_NODES,
    PASSING,
    dtype_name,
    input_of,
    producer,
    stored,
)

ROUNDING = ("QuantizeLinear", "DynamicQuantizeLinear")
EXTREMES = ("ReduceMax", "ReduceMin")
MADE_OF = {
    "Add", "Cast", "Clip", "Div", "Max", "Min", "Mul", "Neg", "QuantizeLinear", "Reciprocal",
    "Round", "Sub", "Where", *PASSING, *EXTREMES, "Abs",
}  # fmt: skip
"""What rounding is written with where it is written out."""
LEVELS = {0: "float32", 1: "float32", 2: "float16", 3: "bfloat16"}
"""Accuracy levels of MatMulNBits that multiply floats."""
INT8_LEVEL = 4


class Input(NamedTuple):
    """How the other factor comes to a product."""

    words: str
    dtype: str | None
    """Of its codes; None: it stays in float."""


LOOKED_UP = Input("looked up by row", None)
FLOAT = Input("float", None)


def treatment(node: ir.Node, reading: Reading) -> Input:
    """How a quantized operator treats its input.

    Args:
        node: The operator.
        reading: What it is in the table of operators.
    """
    if reading.does == "looks up":
        return LOOKED_UP
    if node.op_type == "MatMulNBits":
        level = accuracy_level(node)
        if level == INT8_LEVEL:
            return Input("int8, symmetric, one scale a token and block", "int8")
        return Input(f"{LEVELS.get(level, 'float32')} (accuracy level {level})", None)
    if reading.activation == "float":
        return FLOAT
    if reading.activation == "rounded per tensor":
        return Input("uint8, asymmetric, dynamic, one scale a tensor", "uint8")
    return of_codes(input_of(node, reading.input), input_of(node, reading.input_zero))


def accuracy_level(node: ir.Node) -> int:
    """Accuracy level of a MatMulNBits node."""
    level = node.attributes.get("accuracy_level")
    return 0 if level is None else level.as_int()


def of_codes(codes: ir.Value | None, zero: ir.Value | None) -> Input:
    """How codes came about: by DynamicQuantizeLinear, with a fixed scale, or written out."""
    dtype = _dtype(codes, zero)
    node = producer(codes, through=("Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten"))
    if node is None:
        return Input(f"{dtype} given as such", dtype)
    if node.op_type == "DynamicQuantizeLinear":
        return Input("uint8, asymmetric, dynamic, one scale a tensor", "uint8")
    if node.op_type not in MADE_OF:
        return Input(f"{dtype}, as {node.op_type} makes it", dtype)
    shared = _extremes(node)
    if shared is not None:
        return Input(f"{dtype}, dynamic, one scale a {shared}", dtype)
    if node.op_type == "QuantizeLinear":
        scale = stored(input_of(node, 1))
        if scale is not None:
            grain = "tensor" if scale.size == 1 else "channel"
            return Input(f"{dtype}, static, one scale a {grain}", dtype)
    return Input(f"{dtype}, rounded in the graph", dtype)


def of_float(value: ir.Value | None) -> Input:
    """How the float input of a float operator came about: itself, or from codes by a QDQ pair."""
    node = producer(value, through=PASSING)
    if node is None or node.op_type != "DequantizeLinear":
        return FLOAT
    rounding = producer(input_of(node, 0), through=("Reshape", "Transpose"))
    if rounding is None or rounding.op_type not in ROUNDING:
        return FLOAT
    return of_codes(input_of(node, 0), input_of(node, 2))


def _dtype(codes: ir.Value | None, zero: ir.Value | None) -> str:
    for value in (zero, codes):
        found = stored(value)
        if found is not None:
            return found.dtype
    for value in (codes, zero):
        if value is not None and value.dtype is not None:
            return dtype_name(value.dtype)
    node = producer(codes)
    if node is None or node.op_type in ROUNDING:
        return "uint8"  # the default of both
    to = node.attributes.get("to") if node.op_type == "Cast" else None
    return dtype_name(ir.DataType(to.as_int())) if to is not None else "int8"


def _extremes(start: ir.Node) -> str | None:
    """What shares a scale, by the reduction that finds it in front of a node; None without one."""
    waiting, seen = deque([start]), 0
    while waiting and seen < MANY_NODES:
        node = waiting.popleft()
        seen += 1
        if node.op_type in EXTREMES:
            return "token" if _over_last_axis(node) else "tensor"
        for value in node.inputs:
            before = None if value is None else value.producer()
            if before is not None and before.op_type in MADE_OF:
                waiting.append(before)
    return None


def _over_last_axis(node: ir.Node) -> bool:
    attribute = node.attributes.get("axes")
    if attribute is not None:
        return True
    axes = stored(input_of(node, 1))
    return axes is not None and axes.size > 0
