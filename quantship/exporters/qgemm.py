"""Integers times integers on codes that lie as MatMulNBits has them: onnxruntime's own QGemm.

The arithmetic is that of ``integer``. QGemm takes a matrix as it lies, rows of output features, and
arranges it once, when the model is loaded; MatMulInteger would want a turned copy beside it. What
is computed from codes alone, onnxruntime computes then too.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import onnx_ir as ir

from quantship.exporters import inputs, nbits
from quantship.exporters.graph import DOMAIN, Graph, Layer
from quantship.exporters.inputs import MIDDLE
from quantship.exporters.targets import multiplies_signed_exactly


class Weight(NamedTuple):
    """Names of the values that hold a matrix."""

    codes: str
    """Bytes, (O, I)."""
    scales: str
    """Float, (O,)."""
    zeros: str
    """Code that stands for zero, for each row."""
    zero: str
    """The same, once."""


def matmul(graph: Graph, layer: Layer, name: str, input: str, output: str) -> None:
    """Multiply an input of any rank by a matrix whose codes are in the graph.

    Args:
        graph: The graph under construction.
        layer: What a MatMulNBits node multiplies by: bytes, with one scale a row and no zero
            points.
        name: Prefix of what this layer adds to the graph.
        input: Name of the layer's input.
        output: Name of its output.
    """
    width = layer.parts[0].codes.codes_OI.shape[1]
    last = graph.constant("INT64", [layer.num_out])
    flat, leading = _flat(graph, input, width)
    given = inputs.quantize(graph, flat, inputs.rounding(layer.parts[0]), name)
    weight = _weight(graph, layer, width, name)
    one = graph.constant("FLOAT", 1.0)
    scaled = graph.node(
        "QGemm",
        [given.codes, one, given.zero, weight.codes, weight.scales, weight.zeros],
        f"{output}/scaled",
        domain=DOMAIN,
        transB=1,
    )
    if given.shift is not None:
        # With a zero point z for each token, sum((u - z) w) = sum(u w) - z sum(w).
        sums = _scaled_sums(graph, weight, width, name)
        correction = graph.node("Mul", [given.shift, sums], f"{output}/correction")
        scaled = graph.node("Add", [scaled, correction], f"{output}/centred")
    product = graph.node("Mul", [scaled, given.scale], f"{output}/flat")
    shape = graph.node("Concat", [leading, last], f"{output}/shape", axis=0)
    graph.node("Reshape", [product, shape], output)


def _flat(graph: Graph, input: str, width: int) -> tuple[str, str]:
    """An input as a matrix, and its shape without the last axis; once for all layers."""
    found: tuple[str, str] | None = graph.quantized_inputs.get(("flat", input))
    if found is None:
        rows = graph.constant("INT64", [-1, width])
        flat = graph.node("Reshape", [input, rows], f"{input}/rows")
        found = flat, graph.node("Shape", [input], f"{input}/leading", start=0, end=-1)
        graph.quantized_inputs["flat", input] = found
    return found


def _weight(graph: Graph, layer: Layer, width: int, name: str) -> Weight:
    block = nbits.layout(graph, layer.parts[0]).block_size
    padded = -(-width // block) * block
    last = graph.constant("INT64", [layer.num_out])
    codes, zero = f"{layer.name}.codes", graph.constant("UINT8", MIDDLE)
    if multiplies_signed_exactly(graph.target):
        # Less 128, in bytes: the highest bit turned, and read as a sign.
        turned = graph.node("BitwiseXor", [codes, zero], f"{name}/turned")
        codes = graph.node("Cast", [turned], f"{name}/signed", to=ir.DataType.INT8)
        zero = graph.constant("INT8", 0)
    rows = graph.constant("INT64", [layer.num_out, padded])
    codes = graph.node("Reshape", [codes, rows], f"{name}/rows")
    if padded > width:
        bounds = [graph.constant("INT64", [at]) for at in (0, width, 1)]
        codes = graph.node("Slice", [codes, *bounds], f"{name}/unpadded")
    return Weight(
        codes,
        graph.node("Reshape", [f"{layer.name}.scales", last], f"{name}/row_scales"),
        graph.node("Expand", [zero, last], f"{name}/zeros"),
        zero,
    )


def _scaled_sums(graph: Graph, weight: Weight, width: int, name: str) -> str:
    """Sum of each row of codes times its scale, out of operators that are computed beforehand."""
    ones, last = (
        graph.initializer(f"ones/{width}", np.ones((width, 1), np.uint8)),
        graph.constant("INT64", [-1]),
    )
    none, last = graph.constant("UINT8", 0), graph.constant("INT64", [-1])
    sums = graph.node("MatMulInteger", [weight.codes, ones, weight.zero, none], f"{name}/sums")
    flat = graph.node("Reshape", [sums, last], f"{name}/flat_sums")
    wide = graph.node("Cast", [flat], f"{name}/float_sums", to=ir.DataType.FLOAT)
    return graph.node("Mul", [wide, weight.scales], f"{name}/scaled_sums")
