"""Dynamic quantization for each token in front of MatMulInteger: what w8a8 was trained with.

The nodes repeat ``numerics.fake_quantize_tokens`` operation for operation, so the integers of an
input are torch's integers. Both factors are unsigned (weights shifted by 128): signed weights
saturate in 16 bits on x86 without VNNI, and a signed input has no fast kernel. With a zero point z
for each token, sum((u - z) w) = sum(u w) - z sum(w), and sum(w) is known beforehand.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir

from quantship.exporters.graph import Graph, Place
from quantship.quant.checkpoint import StoredCodes

WEIGHT_ZERO_POINT = 128
SMALLEST_SCALE = float(np.finfo(np.float32).smallest_normal)


def matmul(graph: Graph, parts: list[StoredCodes], name: str, input: str, output: str) -> None:
    """Multiply ``input`` by the rows of all ``parts``, one below the other."""
    codes_OI = np.concatenate([part.codes.codes_OI.numpy() for part in parts])
    scale_O = np.concatenate([part.codes.scale_OG.float().numpy()[:, 0] for part in parts])
    codes = graph.initializer(
        f"{name}.codes", (codes_OI.T.astype(np.int16) + WEIGHT_ZERO_POINT).astype(np.uint8)
    )
    scales = graph.initializer(f"{name}.scales", scale_O)
    sums = graph.initializer(
        f"{name}.sums", codes_OI.sum(axis=1, dtype=np.int32).astype(np.float32)
    )
    unsigned, scale, shift = quantize_tokens(graph, input)
    products = graph.node(
        "MatMulInteger",
        [unsigned, codes, graph.constant("UINT8", 0), graph.constant("UINT8", WEIGHT_ZERO_POINT)],
        f"{output}/products",
    )
    total = graph.node("Cast", [products], f"{output}/total", to=ir.DataType.FLOAT)
    correction = graph.node("Mul", [shift, sums], f"{output}/correction")
    centred = graph.node("Add", [total, correction], f"{output}/centred")
    both_scales = graph.node("Mul", [scale, scales], f"{output}/both_scales")
    graph.node("Mul", [centred, both_scales], output)
    row = 0
    for part in parts:
        num_out, width = part.codes.codes_OI.shape
        graph.places[part.name] = Place("integer", codes, scales, (row, row + num_out), width, 8)
        row += num_out


def quantize_tokens(graph: Graph, input: str) -> tuple[str, str, str]:
    """Quantize each token of a float input to uint8.

    Returns:
        Names of the codes, of the scale and of the negated zero point, the last two of shape
        (batch, sequence, 1) in float.
    """
    if input in graph.quantized_inputs:
        return graph.quantized_inputs[input]
    zero = graph.constant("FLOAT", 0.0)
    top = graph.constant("FLOAT", 255.0)
    axis = graph.constant("INT64", [-1])

    def node(op: str, *inputs: str, name: str, **attributes: Any) -> str:
        return graph.node(op, list(inputs), f"{input}/tokens/{name}", **attributes)

    smallest = node("Min", node("ReduceMin", input, axis, name="min"), zero, name="smallest")
    largest = node("Max", node("ReduceMax", input, axis, name="max"), zero, name="largest")
    step = node("Div", node("Sub", largest, smallest, name="range"), top, name="step")
    scale = node("Max", step, graph.constant("FLOAT", SMALLEST_SCALE), name="scale")
    shift = node("Round", node("Div", smallest, scale, name="lowest"), name="shift")
    scaled = node("Mul", input, node("Reciprocal", scale, name="inverse"), name="scaled")
    moved = node("Sub", node("Round", scaled, name="rounded"), shift, name="moved")
    clipped = node("Clip", moved, zero, top, name="clipped")
    unsigned = node("Cast", clipped, name="codes", to=ir.DataType.UINT8)
    graph.quantized_inputs[input] = (unsigned, scale, shift)
    return graph.quantized_inputs[input]
