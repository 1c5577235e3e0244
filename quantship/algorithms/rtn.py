"""Round to nearest: a grid for each range of weights, nearest codes, no data.

The baseline that every other algorithm has to beat. QAT ends in the very same function, since it
trained with it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from quantship.frozen import Frozen
from quantship.quant.scheme import Scheme

if TYPE_CHECKING:
    from quantship.algorithms.block import Block, FindGrid

NEEDS_DATA = False


class Options(Frozen):
    """Round to nearest: needs no data. ``range`` of the step says how far grids reach."""

    kind: Literal["rtn"] = "rtn"


def reject(scheme: Scheme, options: Options) -> str | None:
    """Why a scheme cannot be quantized so, or None where it can."""
    return None


def quantize(block: Block, options: Options, find_grid: FindGrid) -> list[str]:
    """Settle every layer of a block; returns what a reader of the report should know."""
    for name, format in block.formats.items():
        block.settle(name, find_grid(block.weight(name), format.weight))
    return []
