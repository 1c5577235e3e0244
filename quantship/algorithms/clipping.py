"""How far grids of a weight reach when what counts is the error in the layer's output.

Shapes: O out features, I in features, G groups of S in features, T tokens.

Source:
    Lin et al., AWQ, 2023: its authors' code (mit-han-lab/llm-awq, ``auto_clip``) searches the range
    of each group of weights so; the paper tells of it in section 5.1. Letting a grid's longer side
    lie where the outermost weight is, by a negative scale, is Q4_0's of llama.cpp.
"""

from __future__ import annotations

import torch
from torch import Tensor

from quantship.quant import numerics
from quantship.quant.numerics import Grid, grouped
from quantship.quant.ranges import has_longer_side, shrunk_grid
from quantship.quant.scheme import WeightFormat

SHARES = tuple(step / 20 for step in range(23, 9, -1))
"""Ranges that are tried, as shares of the whole one; those above it put the outermost weight on
the shorter side of the grid."""


@torch.no_grad()
def searched_grid(weight_OI: Tensor, tokens_TI: Tensor, fmt: WeightFormat, start: Grid) -> Grid:
    """The grid that makes the least error in a layer's output, group by group.

    The errors of different groups count as independent, as in the paper.

    Args:
        weight_OI: Float weight.
        tokens_TI: A sample of the layer's inputs, as the layer multiplies them.
        fmt: Format of the weight.
        start: The step's grid, which stays where nothing makes less error.
    """
    groups_GTS = _by_group(tokens_TI, weight_OI, fmt)
    # The squared output error of a group is E H E' with H = X'X: of the two, the smaller one.
    is_wide = groups_GTS.shape[2] > groups_GTS.shape[1]
    moments = groups_GTS if is_wide else groups_GTS.transpose(1, 2) @ groups_GTS
    if fmt.granularity == "per_tensor":
        return _best(weight_OI, moments, fmt, start)
    num_rows = max(1, numerics.CACHED_NUMBERS // weight_OI.shape[1])
    parts = [
        _best(rows_OI, moments, fmt, Grid(scale_OG, zero_OG))
        for rows_OI, scale_OG, zero_OG in zip(
            weight_OI.split(num_rows),
            start.scale.split(num_rows),
            [None] * len(weight_OI) if start.zero is None else start.zero.split(num_rows),
            strict=False,
        )
    ]
    zeros = [part.zero for part in parts if part.zero is not None]
    return Grid(torch.cat([part.scale for part in parts]), torch.cat(zeros) if zeros else None)


def _best(weight_OI: Tensor, moments: Tensor, fmt: WeightFormat, start: Grid) -> Grid:
    best, least_OG = start, _error(weight_OI, moments, fmt, start)
    for share in SHARES:
        if share > 1 and not has_longer_side(fmt):
            continue
        grid = shrunk_grid(weight_OI, share, fmt)
        error_OG = _error(weight_OI, moments, fmt, grid)
        better_OG = error_OG < least_OG
        least_OG = torch.where(better_OG, error_OG, least_OG)
        zero_OG = best.zero
        if zero_OG is not None and grid.zero is not None:
            zero_OG = torch.where(better_OG, grid.zero, zero_OG)
        best = Grid(torch.where(better_OG, grid.scale, best.scale), zero_OG)
    return best


def _error(weight_OI: Tensor, moments: Tensor, fmt: WeightFormat, grid: Grid) -> Tensor:
    """Squared error of the output that each group of weights makes, in the shape of the scales."""
    error_OI = numerics.fake_quantize_on(weight_OI, grid, fmt).sub_(weight_OI)
    num_groups, _, width = moments.shape
    error_GOS = error_OI.view(-1, num_groups, width).transpose(0, 1)
    if moments.shape[1] == width:
        squared_GO = (error_GOS @ moments).mul_(error_GOS).sum(dim=-1)
    else:
        squared_GO = (error_GOS @ moments.transpose(1, 2)).square_().sum(dim=-1)
    return squared_GO.sum().view(1, 1) if fmt.granularity == "per_tensor" else squared_GO.T


def _by_group(tokens_TI: Tensor, weight_OI: Tensor, fmt: WeightFormat) -> Tensor:
    """Inputs (G, T, S) of the groups that have a scale of their own in a row of the weight."""
    per_group = fmt.granularity == "per_group"
    width = grouped(weight_OI[:1], fmt).shape[-1] if per_group else weight_OI.shape[1]
    return tokens_TI.view(len(tokens_TI), -1, width).transpose(0, 1)
