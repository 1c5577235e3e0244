"""A convolution with static 8-bit inputs as ConvInteger: exact sums, and the scales after them.

Weights and inputs are unsigned (shifted by 128), for the reason given in ``integer``; padding is
the input's zero point, which stands for zero exactly.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import onnx_ir as ir

from quantship.exporters import inputs
from quantship.exporters.graph import Graph, Place
from quantship.exporters.inputs import MIDDLE
from quantship.exporters.lowering import arithmetic
from quantship.quant.tensors import StoredCodes


class Geometry(NamedTuple):
    """What a two-dimensional convolution does with its weight."""

    weight_shape: tuple[int, ...]
    """Out channels, in channels of a group, height, width."""
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    pads: tuple[int, ...]
    """Top, left, bottom, right."""
    groups: int


def convolve(
    graph: Graph, part: StoredCodes, geometry: Geometry, name: str, input: str, output: str
) -> None:
    """Convolve ``input`` with the codes of ``part``.

    Args:
        graph: The graph under construction.
        part: Codes as (out channels, all that they sum over), with a static input grid.
        geometry: How the convolution goes over its input.
        name: Of the layer.
        input: Name of its float input, (batch, channels, height, width).
        output: Name of its output.
    """
    assert part.activation is not None
    assert part.input_grid is not None
    num_out, width = part.codes.codes_OI.shape
    unsigned = (part.codes.codes_OI.numpy().astype(np.int16) + MIDDLE).astype(np.uint8)
    codes = graph.initializer(f"{name}.codes", unsigned.reshape(geometry.weight_shape))
    scale_O = np.broadcast_to(part.codes.scale_OG.float().numpy()[:, 0], (num_out,))
    scales = graph.initializer(f"{name}.scales", scale_O.reshape(-1, 1, 1))
    given = inputs.quantize(graph, input, inputs.rounding(part), name)
    sums = graph.node(
        "ConvInteger",
        [given.codes, codes, given.zero, graph.constant("UINT8", MIDDLE)],
        f"{output}/products",
        kernel_shape=list(geometry.weight_shape[2:]),
        strides=list(geometry.strides),
        dilations=list(geometry.dilations),
        pads=list(geometry.pads),
        group=geometry.groups,
    )
    total = graph.node("Cast", [sums], f"{output}/total", to=ir.DataType.FLOAT)
    both_scales = graph.node("Mul", [given.scale, scales], f"{output}/both_scales")
    graph.node("Mul", [total, both_scales], output)
    graph.places[part.name] = Place("integer", codes, scales, (0, num_out), width, 8)
    graph.arithmetic[arithmetic("integer", part.activation)] += 1
