"""Round to nearest: a grid for each range of weights, nearest codes, no data.

The baseline that every other algorithm has to beat. QAT ends in the very same function, since it
trained with it.
"""

from __future__ import annotations

from torch import nn

from quantship.quant.layers import matrix
from quantship.quant.modules import fake_quantized
from quantship.quant.ranges import find_grid
from quantship.quant.scheme import RangeName


def fix_grids(
    model: nn.Module, reach: RangeName, percentile: float, *, learned: bool = False
) -> None:
    """Give every weight of a fake-quantized model a grid of its own, in place.

    Args:
        model: Fake-quantized model.
        reach: How far grids reach.
        percentile: Per cent of the weights that a grid holds, for ``percentile``.
        learned: Whether the grids are trained from there.
    """
    for _, module in fake_quantized(model):
        weight_OI = matrix(module).detach()
        grid = find_grid(weight_OI, module.rounding.fmt, reach, percentile)
        module.rounding.set_grid(grid, learned=learned)
