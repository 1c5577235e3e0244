"""MatMulInteger on codes of weights and inputs: the very arithmetic that was trained.

Both factors are unsigned (shifted by 128): signed weights saturate in 16 bits on x86 without VNNI,
and a signed input has no fast kernel. Sums of products are exact, and the scales come in after.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from torch import Tensor

from quantship.exporters import inputs
from quantship.exporters.graph import Graph, Place
from quantship.exporters.inputs import MIDDLE
from quantship.quant.tensors import StoredCodes

Array = NDArray[Any]


class Weights(NamedTuple):
    """Names of the values that hold a matrix."""

    codes: str
    """8-bit, (I, O)."""
    zero: str
    """Code that stands for zero: one for all, or one an output feature."""
    scales: str
    """Float, (O,)."""
    sums: str
    """Float, (O,): the sum of an output feature's codes, less their zero points."""


def matmul(graph: Graph, parts: list[StoredCodes], name: str, input: str, output: str) -> None:
    """Multiply ``input`` by the rows of all ``parts``, one below the other.

    Args:
        graph: The graph under construction.
        parts: Matrices whose input is rounded in one way, with one scale a row.
        name: Of the layer.
        input: Name of its input.
        output: Name of its output.
    """
    how = inputs.rounding(parts[0])
    assert all(inputs.rounding(part) == how for part in parts)
    given = inputs.quantize(graph, input, how, name)
    weights = store(graph, parts, name)
    products = graph.node(
        "MatMulInteger",
        [given.codes, weights.codes, given.zero, weights.zero],
        f"{output}/products",
    )
    total = graph.node("Cast", [products], f"{output}/total", to=ir.DataType.FLOAT)
    if given.shift is not None:
        # With a zero point z for each token, sum((u - z) w) = sum(u w) - z sum(w).
        correction = graph.node("Mul", [given.shift, weights.sums], f"{output}/correction")
        total = graph.node("Add", [total, correction], f"{output}/centred")
    if how.activation.granularity == "per_token" and given.shift is None:
        # In one product with the weights' scales, onnxruntime 1.31 would fuse a bias that follows
        # into the multiplication, and scale it by the first token's.
        scaled = graph.node("Mul", [total, given.scale], f"{output}/scaled")
        graph.node("Mul", [scaled, weights.scales], output)
        return
    both_scales = graph.node("Mul", [given.scale, weights.scales], f"{output}/both_scales")
    graph.node("Mul", [total, both_scales], output)


def store(graph: Graph, parts: list[StoredCodes], name: str) -> Weights:
    """Add the initializers of ``parts`` and note where each lies."""
    codes_OI = np.concatenate([part.codes.codes_OI.numpy() for part in parts]).astype(np.int16)
    zero_O = np.concatenate([_for_rows(part, part.codes.zero_OG) for part in parts])
    scale_O = np.concatenate([_for_rows(part, part.codes.scale_OG) for part in parts])
    sum_O = (codes_OI - zero_O[:, None]).sum(axis=1, dtype=np.int32).astype(np.float32)
    zero = graph.constant("UINT8", MIDDLE)
    if zero_O.any():
        zero = graph.initializer(f"{name}.zeros", (zero_O + MIDDLE).astype(np.uint8))
    weights = Weights(
        graph.initializer(f"{name}.codes", (codes_OI.T + MIDDLE).astype(np.uint8)),
        zero,
        graph.initializer(f"{name}.scales", scale_O),
        graph.initializer(f"{name}.sums", sum_O),
    )
    row = 0
    for part in parts:
        num_out, width = part.codes.codes_OI.shape
        rows = (row, row + num_out)
        graph.places[part.name] = Place("integer", weights.codes, weights.scales, rows, width, 8)
        row += num_out
    return weights


def _for_rows(part: StoredCodes, numbers: Tensor | None) -> Array:
    """Scales or zero points as one for each row; zeros for None."""
    num_out = part.codes.codes_OI.shape[0]
    if numbers is None:
        return np.zeros(num_out, np.int16)
    kept = numbers.float() if numbers.is_floating_point() else numbers.short()
    return np.array(np.broadcast_to(kept.numpy()[:, 0], num_out))
