"""Fix the static input ranges of a block whose layers are settled."""

from __future__ import annotations

from collections.abc import Mapping

from quantship.algorithms.block import Block
from quantship.quant.calibration import observe, static_inputs
from quantship.quant.numerics import Grid
from quantship.quant.statistics import (
    FROM_HISTOGRAM,
    InputStatistics,
    Options,
    remarks,
    require_sound,
)


def fix(
    block: Block, options: Options, known: Mapping[str, InputStatistics] | None = None
) -> list[str]:
    """Fix the ranges; returns what a reader of the report should know of them.

    Args:
        block: Settled.
        options: Which range to take.
        known: What was seen of inputs before, by the names of their layers in the model; None: the
            block's own calls are looked at, as the blocks before it now leave them.

    Raises:
        ValueError: No data reached a layer.
        QuantshipError: An input held NaN or infinity.
    """
    prefix = f"{block.name}." if block.name else ""
    inputs = {
        f"{prefix}{name.removesuffix('.input_rounding')}": rounding
        for name, rounding in static_inputs(block.module).items()
    }
    if not inputs:
        return []
    if known is None:
        counts = options.range in FROM_HISTOGRAM
        seen = observe(block.module, inputs, block.calls, block.run, counts=counts)  # type: ignore[arg-type]
    else:
        seen = {name: known.get(name, InputStatistics()) for name in inputs}
        require_sound(seen)
    for name, rounding in inputs.items():
        scale, zero = seen[name].grid(options, rounding.fmt)
        device = block.weight(name).device
        grid = Grid(scale.to(device), None if zero is None else zero.to(device))
        rounding.set_grid(grid, learned=False)
        rounding.observer = None
    return remarks(seen)
