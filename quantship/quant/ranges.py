"""How far a weight's grid reaches: to the outermost weight, or less far."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from quantship.quant.numerics import (
    Grid,
    choose_grid,
    code_range,
    dequantize,
    grid_of_range,
    grid_to_end,
    grouped,
    round_to,
)
from quantship.quant.scheme import RangeName, WeightFormat

SHRINK_STEPS = 50
"""Ranges that the search for the least squared error tries, from half to the whole."""


@torch.no_grad()
def find_grid(
    weight_OI: Tensor, fmt: WeightFormat, reach: RangeName = "minmax", percentile: float = 99.9
) -> Grid:
    """The grid of a weight.

    Args:
        weight_OI: Float weight.
        fmt: Its format.
        reach: ``minmax``, ``percentile``, ``mse`` or ``outermost``.
        percentile: Per cent of the weights that a grid holds, for ``percentile``.
    """
    if reach == "percentile":
        return _percentile_grid(weight_OI, fmt, percentile)
    if reach == "mse":
        return _least_error_grid(weight_OI, fmt)
    if reach == "outermost" and fmt.symmetric:
        return _outermost_grid(weight_OI, fmt)
    return choose_grid(weight_OI, fmt)


def has_longer_side(fmt: WeightFormat) -> bool:
    """Whether the one code more that a grid has on one side is worth a negative scale."""
    return fmt.symmetric and fmt.bits < 8


def shrunk_grid(weight_OI: Tensor, share: float, fmt: WeightFormat) -> Grid:
    """The grid of a share of the weights' range, for searches that weigh errors in their own way.

    Where it is worth it, the outermost weight's share is the end of the grid's longer side.
    """
    grouped_OGS = grouped(weight_OI, fmt)
    lowest_OG, highest_OG = grouped_OGS.amin(dim=-1), grouped_OGS.amax(dim=-1)
    if not has_longer_side(fmt):
        return grid_of_range(lowest_OG * share, highest_OG * share, fmt)
    outermost_OG = torch.where(highest_OG > -lowest_OG, highest_OG, lowest_OG)
    return grid_to_end(outermost_OG * share, code_range(fmt.bits)[0], fmt)


def _percentile_grid(weight_OI: Tensor, fmt: WeightFormat, percentile: float) -> Grid:
    grouped_OGS = grouped(weight_OI, fmt)
    size = grouped_OGS.shape[-1]
    rank = min(size, max(1, math.ceil(size * percentile / 100)))
    highest_OG = grouped_OGS.kthvalue(rank, dim=-1).values
    lowest_OG = grouped_OGS.kthvalue(size + 1 - rank, dim=-1).values
    return grid_of_range(lowest_OG, highest_OG, fmt)


def _least_error_grid(weight_OI: Tensor, fmt: WeightFormat) -> Grid:
    """Shrink every group's range step by step, and keep for each group the best of all."""
    grouped_OGS = grouped(weight_OI, fmt)
    lowest_OG, highest_OG = grouped_OGS.amin(dim=-1), grouped_OGS.amax(dim=-1)
    best = choose_grid(weight_OI, fmt)
    least_OG = _squared_error(weight_OI, best, fmt)
    for step in range(1, SHRINK_STEPS + 1):
        share = 1 - step / (2 * SHRINK_STEPS)
        grid = grid_of_range(lowest_OG * share, highest_OG * share, fmt)
        error_OG = _squared_error(weight_OI, grid, fmt)
        better_OG = error_OG < least_OG
        least_OG = torch.where(better_OG, error_OG, least_OG)
        best = Grid(
            torch.where(better_OG, grid.scale, best.scale),
            None
            if grid.zero is None or best.zero is None
            else torch.where(better_OG, grid.zero, best.zero),
        )
    return best


def _outermost_grid(weight_OI: Tensor, fmt: WeightFormat) -> Grid:
    """Put the outermost weight of each group on an end of its grid: on that of the less error.

    A grid around zero is one code longer on one side, and a negative scale says on which; Q4_0 of
    llama.cpp always takes the longer one. With zero points both ends are weights anyway.
    """
    grouped_OGS = grouped(weight_OI, fmt)
    lowest_OG, highest_OG = grouped_OGS.amin(dim=-1), grouped_OGS.amax(dim=-1)
    outermost_OG = torch.where(highest_OG > -lowest_OG, highest_OG, lowest_OG)
    longer, shorter = (grid_to_end(outermost_OG, end, fmt) for end in code_range(fmt.bits))
    better_OG = _squared_error(weight_OI, shorter, fmt) < _squared_error(weight_OI, longer, fmt)
    return Grid(torch.where(better_OG, shorter.scale, longer.scale))


def _squared_error(weight_OI: Tensor, grid: Grid, fmt: WeightFormat) -> Tensor:
    numbers_OI = dequantize(round_to(weight_OI, grid, fmt))
    error_OGS = grouped(numbers_OI.sub_(weight_OI), fmt)
    return error_OGS.square_().sum(dim=-1)
