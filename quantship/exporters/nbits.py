"""Weight codes as com.microsoft.MatMulNBits, and the tied embedding as GatherBlockQuantized.

Codes of up to 4 bits are packed two a byte, wider ones lie one a byte, both unsigned (shifted by
half the container's range, which is the operator's default zero point). Blocks are powers of two;
where a scale spans more input features than a block, it is repeated, so no code changes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from quantship.exporters.graph import Graph, Place
from quantship.exporters.lowering import SMALLEST_BLOCK
from quantship.quant.checkpoint import StoredCodes

Array = NDArray[Any]
ROW_BLOCKS = (128, 64, 32, SMALLEST_BLOCK)
"""Blocks for a scale that spans a whole row, the one that repeats it least first."""
ACCURACY_LEVEL = 4  # int8 arithmetic; level 0 multiplies in float32, which is far slower


def matmul(graph: Graph, parts: list[StoredCodes], name: str, input: str, output: str) -> None:
    """Multiply ``input`` by the rows of all ``parts``, one below the other."""
    codes, scales = store(graph, parts, name)
    width, num_out = parts[0].codes.codes_OI.shape[1], _num_rows(parts)
    graph.node(
        "MatMulNBits",
        [input, codes, scales],
        output,
        domain="com.microsoft",
        K=width,
        N=num_out,
        bits=container_bits(parts[0].bits),
        block_size=block_size(parts[0]),
        accuracy_level=ACCURACY_LEVEL,
    )


def store(graph: Graph, parts: list[StoredCodes], name: str) -> tuple[str, str]:
    """Add the initializers of ``parts`` and note where each lies; return their names."""
    block, bits = block_size(parts[0]), container_bits(parts[0].bits)
    assert all((block_size(part), container_bits(part.bits)) == (block, bits) for part in parts)
    codes_name, scales_name = names(name)
    graph.initializer(codes_name, np.concatenate([_packed(part, block, bits) for part in parts]))
    graph.initializer(scales_name, np.concatenate([_block_scales(part, block) for part in parts]))
    row = 0
    for part in parts:
        num_out, width = part.codes.codes_OI.shape
        graph.places[part.name] = Place(
            "nbits", codes_name, scales_name, (row, row + num_out), width, bits
        )
        row += num_out
    return codes_name, scales_name


def names(name: str) -> tuple[str, str]:
    """Names of the initializers that ``store`` gives to a layer's codes and scales."""
    return f"{name}.codes", f"{name}.scales"


def embedding(graph: Graph, part: StoredCodes, stored: tuple[str, str], name: str, ids: str) -> str:
    """Look up rows of codes that ``store`` has put, or will put, into the model."""
    codes, scales = stored
    num_rows, width = part.codes.codes_OI.shape
    block, bits = block_size(part), container_bits(part.bits)
    padded = -(-width // block) * block
    flat_codes = graph.node(
        "Reshape",
        [codes, graph.constant("INT64", [num_rows, padded * bits // 8])],
        f"{name}/codes",
    )
    rows = graph.node(
        "GatherBlockQuantized",
        [flat_codes, ids, scales],
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


def block_size(part: StoredCodes) -> int:
    """Input features in a block: the group, or the largest power of two that fits a row."""
    width, num_groups = part.codes.codes_OI.shape[1], part.codes.scale_OG.shape[1]
    if num_groups > 1:
        return width // num_groups
    return next((block for block in ROW_BLOCKS if width % block == 0), SMALLEST_BLOCK)


def container_bits(bits: int) -> int:
    """Bits that a code takes in the file; the CPU kernels know 4 and 8."""
    return 4 if bits <= 4 else 8


def _num_rows(parts: list[StoredCodes]) -> int:
    return sum(part.codes.codes_OI.shape[0] for part in parts)


def _packed(part: StoredCodes, block: int, bits: int) -> Array:
    codes_OI = part.codes.codes_OI.numpy()
    num_out, width = codes_OI.shape
    zero_point = 1 << (bits - 1)
    unsigned_OI: Array = (codes_OI.astype(np.int16) + zero_point).astype(np.uint8)
    num_blocks = -(-width // block)
    padding = num_blocks * block - width
    if padding:
        unsigned_OI = np.pad(unsigned_OI, ((0, 0), (0, padding)), constant_values=zero_point)
    if bits == 4:
        unsigned_OI = unsigned_OI[:, 0::2] | (unsigned_OI[:, 1::2] << 4)
    return unsigned_OI.reshape(num_out, num_blocks, block * bits // 8)


def _block_scales(part: StoredCodes, block: int) -> Array:
    scale_OG = part.codes.scale_OG.float().numpy()
    num_blocks = -(-part.codes.codes_OI.shape[1] // block)
    return np.repeat(scale_OG, num_blocks // scale_OG.shape[1], axis=1)
