"""The input of a layer as unsigned 8-bit codes: the very codes that it had in training.

The nodes repeat ``numerics.input_grid`` and ``numerics.input_codes`` operation for operation, so
the integers of an input are torch's integers, shifted by 128.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import onnx_ir as ir

from quantship.exporters.graph import Graph
from quantship.quant.numerics import INT8_SMALLEST_SCALE
from quantship.quant.scheme import ActivationFormat
from quantship.quant.tensors import StoredCodes

MIDDLE = 128
"""What is added to signed codes to make them unsigned."""
ROUNDING = 1.5 * 2.0**23
"""Numbers near it are whole in float32; what is added to it must stay under 2^22."""
SMALLEST_NORMAL = float(np.finfo(np.float32).smallest_normal)


class Rounding(NamedTuple):
    """How an input becomes codes."""

    activation: ActivationFormat
    scale: float | None
    """Of a static range."""
    zero: int | None
    """Of a static range that has a zero point."""


class Quantized(NamedTuple):
    """Names of the values that hold an input."""

    codes: str
    scale: str
    """Float: one for all, or (batch, sequence, 1)."""
    zero: str
    """Code that stands for zero, one for all."""
    shift: str | None
    """Float, (batch, sequence, 1): what is to be added to each token's codes beside ``zero``."""


def rounding(part: StoredCodes) -> Rounding:
    """How the input of a layer becomes codes; the layer is one whose input is quantized."""
    assert part.activation is not None
    if part.input_grid is None:
        return Rounding(part.activation, None, None)
    scale, zero = part.input_grid
    return Rounding(part.activation, float(scale), None if zero is None else int(zero))


def quantize(graph: Graph, input: str, how: Rounding, name: str) -> Quantized:
    """Quantize a float input, once for all layers that do it in the same way.

    Args:
        graph: The graph under construction.
        input: Name of the input.
        how: How it becomes codes.
        name: Of the layer, for the parts that it need not share.
    """
    key = (input, how)
    found: Quantized | None = graph.quantized_inputs.get(key)
    if found is None:
        if how.activation.granularity == "per_token" and not how.activation.symmetric:
            found = _asymmetric_tokens(graph, input)
        else:
            found = _on_one_zero(graph, input, how, name)
        graph.quantized_inputs[key] = found
    return found


def _asymmetric_tokens(graph: Graph, input: str) -> Quantized:
    zero = graph.constant("FLOAT", 0.0)
    top = graph.constant("FLOAT", 255.0)
    axis = graph.constant("INT64", [-1])

    def node(op: str, *inputs: str, name: str, **attributes: Any) -> str:
        return graph.node(op, list(inputs), f"{input}/tokens/{name}", **attributes)

    smallest = node("Min", node("ReduceMin", input, axis, name="min"), zero, name="smallest")
    largest = node("Max", node("ReduceMax", input, axis, name="max"), zero, name="largest")
    step = node("Div", node("Sub", largest, smallest, name="range"), top, name="step")
    scale = node("Max", step, graph.constant("FLOAT", SMALLEST_NORMAL), name="scale")
    shift = node("Round", node("Div", smallest, scale, name="lowest"), name="shift")
    scaled = node("Mul", input, node("Reciprocal", scale, name="inverse"), name="scaled")
    # A sum this large has no room for a fraction: it is rounded, half to even, and many times
    # faster than by the operator Round. What was added is taken away together with the shift.
    large = graph.constant("FLOAT", ROUNDING)
    offset = node("Add", shift, large, name="offset")
    moved = node("Sub", node("Add", scaled, large, name="rounded"), offset, name="moved")
    # MatMulInteger takes one zero point for all tokens: theirs are for the caller to add.
    none = graph.constant("UINT8", 0)
    codes = node("QuantizeLinear", moved, graph.constant("FLOAT", 1.0), none, name="codes")
    return Quantized(codes, scale, none, shift)


def _on_one_zero(graph: Graph, input: str, how: Rounding, name: str) -> Quantized:
    per_token = how.activation.granularity == "per_token"
    prefix = f"{input}/{'tokens' if per_token else 'tensor'}"
    if how.scale is not None:
        # Layers with an input in common may have ranges of their own.
        prefix = f"{input}/static{name}"
        scale = graph.initializer(f"{name}.input_scale", np.array(how.scale, np.float32))
        zero = graph.constant("UINT8", MIDDLE + (how.zero or 0))
    elif how.activation.symmetric:
        prefix = f"{prefix}/symmetric"
        scale = _symmetric_scale(graph, input, prefix, per_token=per_token)
        zero = graph.constant("UINT8", MIDDLE)
    else:
        scale, zero = _asymmetric_grid(graph, input, prefix)
    # QuantizeLinear divides where training multiplies by the inverse: so it gets the product, and
    # a scale of 1 that leaves it the rounding.
    inverse = graph.node("Reciprocal", [scale], f"{prefix}/inverse")
    scaled = graph.node("Mul", [input, inverse], f"{prefix}/scaled")
    one = graph.constant("FLOAT", 1.0)
    unsigned = graph.node("QuantizeLinear", [scaled, one, zero], f"{prefix}/codes")
    return Quantized(unsigned, scale, zero, None)


def _symmetric_scale(graph: Graph, input: str, prefix: str, *, per_token: bool) -> str:
    lowest, highest = _extremes(graph, input, prefix, per_token=per_token)
    below = graph.node("Neg", [lowest], f"{prefix}/below")
    reach = graph.node("Max", [highest, below], f"{prefix}/reach")
    step = graph.node("Div", [reach, graph.constant("FLOAT", 127.5)], f"{prefix}/step")
    least = graph.constant("FLOAT", INT8_SMALLEST_SCALE)
    return graph.node("Max", [step, least], f"{prefix}/scale")


def _asymmetric_grid(graph: Graph, input: str, prefix: str) -> tuple[str, str]:
    lowest, highest = _extremes(graph, input, prefix, per_token=False)
    none, top = graph.constant("FLOAT", 0.0), graph.constant("FLOAT", 255.0)

    def node(op: str, *inputs: str, name: str, **attributes: Any) -> str:
        return graph.node(op, list(inputs), f"{prefix}/{name}", **attributes)

    smallest = node("Min", lowest, none, name="smallest")
    largest = node("Max", highest, none, name="largest")
    step = node("Div", node("Sub", largest, smallest, name="range"), top, name="step")
    scale = node("Max", step, graph.constant("FLOAT", INT8_SMALLEST_SCALE), name="scale")
    shift = node("Round", node("Div", smallest, scale, name="lowest"), name="shift")
    inside = node("Clip", node("Neg", shift, name="unclipped"), none, top, name="point")
    return scale, node("Cast", inside, name="zero", to=ir.DataType.UINT8)


def _extremes(graph: Graph, input: str, prefix: str, *, per_token: bool) -> tuple[str, str]:
    """Least and greatest number: of each token, or as a scalar."""
    over = [graph.constant("INT64", [-1])] if per_token else []
    return (
        graph.node("ReduceMin", [input, *over], f"{prefix}/min", keepdims=int(per_token)),
        graph.node("ReduceMax", [input, *over], f"{prefix}/max", keepdims=int(per_token)),
    )
