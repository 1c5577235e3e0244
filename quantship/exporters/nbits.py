"""Weight codes as com.microsoft.MatMulNBits, and the tied embedding as GatherBlockQuantized.

Codes of up to 4 bits are packed two a byte, wider ones lie one a byte, both unsigned (shifted by
half the container's range, which is the operator's default zero point); so are zero points. Blocks
are powers of two; where a scale spans a whole row, it lies in the file once and is repeated for the
row's blocks, so no code changes. Scales of groups that bfloat16 holds without loss lie in the file
as such. onnxruntime repeats or widens scales once, when it loads the model, before it arranges
weights and scales for its kernels. It must be let: with all graph optimizations disabled,
onnxruntime 1.31 takes scales that a node computes for others, and says nothing.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import onnx_ir as ir
import torch
from numpy.typing import NDArray

from quantship.exporters.graph import Graph, Layer, Place
from quantship.exporters.lowering import SMALLEST_BLOCK
from quantship.quant.tensors import StoredCodes

Array = NDArray[Any]
FINE_BLOCK, LARGEST_ROW_BLOCK = 32, 128
"""Blocks for a scale that spans a whole row. Inputs get a scale for each block, so the finer it is
the nearer the layer is to float; the larger it is, the fewer scales are read.
"""
ACCURACY_LEVEL = 4  # int8 arithmetic; level 0 multiplies in float32, which is far slower


class Layout(NamedTuple):
    """What matrices must agree on to lie in one initializer."""

    block_size: int
    """Input features in a block."""
    container_bits: int
    """Bits that a code takes in the file."""
    narrow_scales: bool
    """Whether scales lie in the file as bfloat16."""
    row_scales: bool
    """Whether scales lie in the file once a row, for blocks that are several."""
    zero_points: bool
    """Whether blocks have zero points."""


class Stored(NamedTuple):
    """Names of the values that hold a matrix."""

    codes: str
    scales: str
    """In float32 and one a block, be it after a cast or repeated."""
    zeros: str | None


def layout(graph: Graph, part: StoredCodes) -> Layout:
    """How a matrix lies in the file."""
    scale_OG = part.codes.scale_OG.float()
    grouped = scale_OG.shape[1] > 1
    exact = grouped and torch.equal(scale_OG.bfloat16().float(), scale_OG)
    # The CPU kernels know containers of 4 and 8 bits.
    bits = 4 if part.bits <= 4 else 8
    block = _block_size(part, LARGEST_ROW_BLOCK if graph.prefers_speed else FINE_BLOCK)
    repeated = not grouped and part.codes.codes_OI.shape[1] > block
    return Layout(block, bits, exact, repeated, part.codes.zero_OG is not None)


def matmul(graph: Graph, parts: list[StoredCodes], name: str, input: str, output: str) -> None:
    """Multiply ``input`` by the rows of all ``parts``, one below the other, of one layout."""
    graph.layers[output] = Layer(name, parts)
    bits = layout(graph, parts[0]).container_bits
    multiply(graph, parts, store(graph, parts, name), bits, input, output)


def multiply(
    graph: Graph,
    parts: list[StoredCodes],
    stored: tuple[str | None, ...],
    container_bits: int,
    input: str,
    output: str,
) -> None:
    """Multiply ``input`` by matrices that lie in the graph.

    Args:
        graph: The graph under construction.
        parts: The matrices, one below the other.
        stored: Names of the values that hold their codes, scales and, if any, zero points.
        container_bits: Bits that a code takes there.
        input: Name of the layer's input.
        output: Name of its output.
    """
    graph.node(
        "MatMulNBits",
        [input, *(value for value in stored if value is not None)],
        output,
        domain="com.microsoft",
        K=parts[0].codes.codes_OI.shape[1],
        N=sum(part.codes.codes_OI.shape[0] for part in parts),
        bits=container_bits,
        block_size=layout(graph, parts[0]).block_size,
        accuracy_level=ACCURACY_LEVEL,
    )


def store(graph: Graph, parts: list[StoredCodes], name: str) -> Stored:
    """Add the initializers of ``parts``, note where each lies, and widen their scales."""
    form = layout(graph, parts[0])
    assert all(layout(graph, part) == form for part in parts)
    stored = names(graph, parts[0], name)
    codes = graph.initializer(stored.codes, np.concatenate([_codes(part, form) for part in parts]))
    scale_OG = np.concatenate([_scales(part, form) for part in parts])
    scales = f"{name}.scales"
    if form.narrow_scales:
        graph.initializer(scales, scale_OG.astype(ir.DataType.BFLOAT16.numpy()))
        graph.node("Cast", [scales], stored.scales, to=ir.DataType.FLOAT)
    elif form.row_scales:
        graph.initializer(scales, scale_OG)
        shape = graph.constant("INT64", [len(scale_OG), _num_blocks(parts[0], form)])
        graph.node("Expand", [scales, shape], stored.scales)
    else:
        graph.initializer(scales, scale_OG)
    if stored.zeros is not None:
        graph.initializer(stored.zeros, np.concatenate([_zeros(part, form) for part in parts]))
    row = 0
    for part in parts:
        num_out, width = part.codes.codes_OI.shape
        graph.places[part.name] = Place(
            "nbits", codes, scales, (row, row + num_out), width, form.container_bits
        )
        row += num_out
    return stored


def names(graph: Graph, part: StoredCodes, name: str) -> Stored:
    """Names of the values that ``store`` gives to a layer."""
    form = layout(graph, part)
    scales = f"{name}/scales" if form.narrow_scales or form.row_scales else f"{name}.scales"
    return Stored(f"{name}.codes", scales, f"{name}.zeros" if form.zero_points else None)


def embedding(graph: Graph, part: StoredCodes, stored: Stored, name: str, ids: str) -> str:
    """Look up rows of codes that ``store`` has put, or will put, into the model."""
    num_rows, width = part.codes.codes_OI.shape
    block, bits, *_ = layout(graph, part)
    padded = -(-width // block) * block
    flat_codes = graph.node(
        "Reshape",
        [stored.codes, graph.constant("INT64", [num_rows, padded * bits // 8])],
        f"{name}/codes",
    )
    rows = graph.node(
        "GatherBlockQuantized",
        [flat_codes, ids, *(value for value in stored[1:] if value is not None)],
        f"{name}/rows",
        domain="com.microsoft",
        bits=bits,
        block_size=block,
        gather_axis=0,
        quantize_axis=1,
    )
    if padded == width:
        return rows
    bounds = [graph.constant("INT64", [at]) for at in (0, width, -1)]
    return graph.node("Slice", [rows, *bounds], f"{name}/unpadded")


def _block_size(part: StoredCodes, largest: int) -> int:
    """The group, or where a scale spans a whole row, the largest power of two that fits it."""
    width, num_groups = part.codes.codes_OI.shape[1], part.codes.scale_OG.shape[1]
    if num_groups > 1:
        return int(width // num_groups)
    block = largest
    while width % block and block > SMALLEST_BLOCK:
        block //= 2
    return block


def _codes(part: StoredCodes, form: Layout) -> Array:
    """Unsigned codes of shape (O, blocks, bytes), padded with what stands for zero."""
    codes_OI, zero_OG = part.codes.codes_OI.numpy(), part.codes.zero_OG
    num_out, width = codes_OI.shape
    num_blocks = _num_blocks(part, form)
    padding = num_blocks * form.block_size - width
    if padding:
        zero_O1 = np.zeros((num_out, 1), np.int8) if zero_OG is None else zero_OG.numpy()
        codes_OI = np.concatenate([codes_OI, np.repeat(zero_O1, padding, axis=1)], axis=1)
    packed = _unsigned(codes_OI, form.container_bits)
    return packed.reshape(num_out, num_blocks, -1)


def _num_blocks(part: StoredCodes, form: Layout) -> int:
    return int(-(-part.codes.codes_OI.shape[1] // form.block_size))


def _scales(part: StoredCodes, form: Layout) -> Array:
    """Scales of shape (O, blocks), or (O, 1) where blocks share them."""
    scale_OG = part.codes.scale_OG.float().numpy()
    if form.row_scales:
        return np.array(np.broadcast_to(scale_OG, (part.codes.codes_OI.shape[0], 1)))
    return _for_blocks(part, scale_OG, form)


def _zeros(part: StoredCodes, form: Layout) -> Array:
    assert part.codes.zero_OG is not None
    return _unsigned(_for_blocks(part, part.codes.zero_OG.numpy(), form), form.container_bits)


def _for_blocks(part: StoredCodes, numbers_OG: Array, form: Layout) -> Array:
    """Numbers of shape (O, G), or (1, 1) for the whole matrix, as one for each row and block."""
    num_out, num_blocks = part.codes.codes_OI.shape[0], _num_blocks(part, form)
    repeated = np.repeat(numbers_OG, num_blocks // numbers_OG.shape[1], axis=1)
    return np.broadcast_to(repeated, (num_out, num_blocks))


def _unsigned(signed: Array, bits: int) -> Array:
    """Signed codes as the operators take them: shifted, and 4-bit ones two a byte."""
    shifted: Array = (signed.astype(np.int16) + (1 << (bits - 1))).astype(np.uint8)
    if bits == 8:
        return shifted
    if shifted.shape[1] % 2:
        shifted = np.pad(shifted, ((0, 0), (0, 1)))
    packed: Array = shifted[:, 0::2] | (shifted[:, 1::2] << 4)
    return packed
