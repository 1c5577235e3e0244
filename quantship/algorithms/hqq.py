"""HQQ: choose grids that leave small errors small and give up on outliers, without data.

The l_p norm of the rounding error, p below 1, is made small in half-quadratic steps: a part of each
error is taken for an outlier's and set aside by a shrinkage, then the grid is fitted to what is
left, in closed form. A grid is taken only where it makes the norm smaller, so that no group ends
with a larger one than the step's ``range`` gives it. That is no promise for the model: where few
large weights matter most, as in SmolLM2-135M, grids that hold them all are better in wide groups.

Source:
    Badri and Shaji, Half-Quadratic Quantization of Large Machine Learning Models, 2023. Theirs fits
    a zero point in floats and leaves the scale alone; here the grids are those that checkpoints
    hold, with zero points that are codes and scales as they are stored, so the scale is fitted as
    well. The shrinkage works on errors in steps of the grid, not on the weights' own numbers, which
    makes it do the same for layers of small weights and of large ones. torchao 0.18 has two of the
    name, and neither serves: ``_choose_qparams_and_quantize_affine_hqq`` leaves zero points in
    floats, and ``_choose_qparams_and_quantize_scale_only_hqq`` has no shrinkage and keeps the last
    scale, not the best.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from quantship.frozen import Frozen
from quantship.quant.scheme import Scheme, WeightFormat

if TYPE_CHECKING:
    from torch import Tensor

    from quantship.algorithms.block import Block, FindGrid
    from quantship.quant.numerics import Grid

NEEDS_DATA = False
BETA = 10.0
"""Weight of the quadratic term in the first step: errors below a sixth of a step are kept whole."""
BETA_GROWTH = 1.01
"""What it is multiplied by after each."""


class Options(Frozen):
    """HQQ: chooses grids that leave small errors small and give up on outliers; needs no data."""

    kind: Literal["hqq"] = "hqq"
    iterations: Annotated[int, Field(ge=1)] = 20
    """Half-quadratic steps."""
    norm: float = Field(default=0.7, gt=0, le=1)
    """The p of the l_p norm that is made small."""


def reject(scheme: Scheme, options: Options) -> str | None:
    """Why a scheme cannot be quantized so, or None where it can."""
    return None


def quantize(block: Block, options: Options, find_grid: FindGrid) -> list[str]:
    """Settle every layer of a block; returns what a reader of the report should know."""
    for name, format in block.formats.items():
        weight_OI = block.weight(name)
        start = find_grid(weight_OI, format.weight)
        block.settle(name, improve(weight_OI, start, format.weight, options))
    return []


def improve(weight_OI: Tensor, start: Grid, fmt: WeightFormat, options: Options) -> Grid:
    """The best grid that is found from a first one.

    Args:
        weight_OI: Float weight.
        start: The grid to begin with.
        fmt: Format of the weight.
        options: Which norm, and how many steps.

    Returns:
        A grid on which no group's rounding error has a larger l_p norm than on the first.
    """
    import torch

    from quantship.quant.numerics import Grid, cached_rows, rows_of

    if fmt.granularity == "per_tensor":
        return _improve(weight_OI, start, fmt, options)
    parts = [
        _improve(weight_OI[rows], rows_of(start, rows), fmt, options)
        for rows in cached_rows(*weight_OI.shape)
    ]
    zeros = [part.zero for part in parts if part.zero is not None]
    return Grid(torch.cat([part.scale for part in parts]), torch.cat(zeros) if zeros else None)


def _improve(weight_OI: Tensor, start: Grid, fmt: WeightFormat, options: Options) -> Grid:
    import torch

    from quantship.quant.numerics import Grid, grouped, quantize

    weight_OGS, grid, beta = grouped(weight_OI, fmt), start, BETA
    best, least_OG = start, None
    for _ in range(options.iterations + 1):
        codes_OGS = grouped(quantize(weight_OI, grid, fmt).to(weight_OI.dtype), fmt)
        if grid.zero is not None:
            codes_OGS.sub_(grid.zero.unsqueeze(-1))
        scale_OG1 = grid.scale.unsqueeze(-1)
        error_OGS = weight_OGS - codes_OGS * scale_OG1
        norm_OG = error_OGS.abs().pow_(options.norm).sum(dim=-1)
        if least_OG is None:
            least_OG = norm_OG
        else:
            better_OG = norm_OG < least_OG
            if not better_OG.any():
                break
            least_OG = torch.where(better_OG, norm_OG, least_OG)
            best = _chosen(better_OG, grid, best)
        aside_OGS = _shrunk(error_OGS.div_(scale_OG1), options.norm, beta).mul_(scale_OG1)
        grid = _fitted(weight_OGS - aside_OGS, codes_OGS, grid, fmt)
        beta *= BETA_GROWTH
    return Grid(best.scale, best.zero)


def _shrunk(error: Tensor, norm: float, beta: float) -> Tensor:
    """What of each error, in steps, is set aside: sign(x) max(|x| - |x|^(p-1) / beta, 0)."""
    size = error.abs()
    # An error of nothing would be divided by; it is shrunk to nothing like all small ones.
    kept = size.clamp(min=1e-4).pow_(norm - 1).div_(-beta).add_(size).clamp_(min=0)
    return kept.copysign_(error)


def _fitted(target_OGS: Tensor, codes_OGS: Tensor, grid: Grid, fmt: WeightFormat) -> Grid:
    """The grid that brings codes nearest to some numbers: least squares for each group.

    Args:
        target_OGS: The numbers.
        codes_OGS: Codes less the zero point that they were made with.
        grid: The grid that they were made with.
        fmt: Format of the weight.
    """
    import torch

    from quantship.quant.numerics import Grid, code_range, grid_to_end

    zero_OG = grid.zero
    if zero_OG is not None:
        shift_OG = (codes_OGS - target_OGS / grid.scale.unsqueeze(-1)).mean(dim=-1)
        moved_OG = (zero_OG + shift_OG).round_().clamp_(*code_range(fmt.bits))
        codes_OGS = codes_OGS - (moved_OG - zero_OG).unsqueeze(-1)
        zero_OG = moved_OG
    square_OG = codes_OGS.square().sum(dim=-1)
    fitted_OG = (target_OGS * codes_OGS).sum(dim=-1) / square_OG
    scale_OG = torch.where((square_OG > 0) & (fitted_OG != 0), fitted_OG, grid.scale)
    if zero_OG is not None:
        scale_OG = torch.where(scale_OG > 0, scale_OG, grid.scale)
    return Grid(grid_to_end(scale_OG, 1, fmt).scale, zero_OG)


def _chosen(where_OG: Tensor, one: Grid, other: Grid) -> Grid:
    import torch

    from quantship.quant.numerics import Grid

    zero_OG = None
    if one.zero is not None and other.zero is not None:
        zero_OG = torch.where(where_OG, one.zero, other.zero)
    return Grid(torch.where(where_OG, one.scale, other.scale), zero_OG)
