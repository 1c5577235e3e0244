"""MatMulInteger on codes of weights and inputs: the very arithmetic that was trained.

Both factors are unsigned (shifted by 128): signed weights saturate in 16 bits on x86 without VNNI,
and a signed input has no fast kernel. Sums of products are exact, and the scales come in after.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from torch import Tensor

from quantship.exporters import inputs
from quantship.exporters.graph import Graph, Place
from quantship.exporters.inputs import MIDDLE
from quantship.quant.tensors import StoredCodes

Array = NDArray[Any]


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
    codes_OI = np.concatenate([part.codes.codes_OI.numpy() for part in parts]).astype(np.int16)
    zero_O = np.concatenate([_for_rows(part, part.codes.zero_OG) for part in parts])
    scale_O = np.concatenate([_for_rows(part, part.codes.scale_OG) for part in parts])
    codes = graph.initializer(f"{name}.codes", (codes_OI.T + MIDDLE).astype(np.uint8))
    scales = graph.initializer(f"{name}.scales", scale_O)
    weight_zero = graph.constant("UINT8", MIDDLE)
    if zero_O.any():
        weight_zero = graph.initializer(f"{name}.zeros", (zero_O + MIDDLE).astype(np.uint8))
    given = inputs.quantize(graph, input, how, name)
    products = graph.node(
        "MatMulInteger", [given.codes, codes, given.zero, weight_zero], f"{output}/products"
    )
    total = graph.node("Cast", [products], f"{output}/total", to=ir.DataType.FLOAT)
    if given.shift is not None:
        # With a zero point z for each token, sum((u - z) w) = sum(u w) - z sum(w).
        sum_O = (codes_OI - zero_O[:, None]).sum(axis=1, dtype=np.int32).astype(np.float32)
        sums = graph.initializer(f"{name}.sums", sum_O)
        correction = graph.node("Mul", [given.shift, sums], f"{output}/correction")
        total = graph.node("Add", [total, correction], f"{output}/centred")
    both_scales = graph.node("Mul", [given.scale, scales], f"{output}/both_scales")
    graph.node("Mul", [total, both_scales], output)
    row = 0
    for part in parts:
        num_out, width = part.codes.codes_OI.shape
        graph.places[part.name] = Place("integer", codes, scales, (row, row + num_out), width, 8)
        row += num_out


def _for_rows(part: StoredCodes, numbers: Tensor | None) -> Array:
    """Scales or zero points as one for each row; zeros for None."""
    num_out = part.codes.codes_OI.shape[0]
    if numbers is None:
        return np.zeros(num_out, np.int16)
    kept = numbers.float() if numbers.is_floating_point() else numbers.short()
    return np.array(np.broadcast_to(kept.numpy()[:, 0], num_out))
