"""The grids of a fake-quantized model that do not follow from the numbers at hand."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from quantship import progress
from quantship.data.calibration import sequences
from quantship.quant.calibration import calibrate, static_inputs
from quantship.quant.layers import matrix
from quantship.quant.modules import fake_quantized
from quantship.quant.ranges import find_grid
from quantship.recipe.rounding_options import RoundingOptions

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def find_grids(
    model: PreTrainedModel,
    options: RoundingOptions,
    data: Path | None,
    *,
    fixes_weights: bool,
    learned: bool = False,
) -> int:
    """Find the grids that do not follow from the numbers at hand, in place.

    Args:
        model: Fake-quantized model.
        options: How far grids reach.
        data: Directory of the prepared data, where input ranges are static.
        fixes_weights: Whether the weights' grids are fixed now; else they follow the weights.
        learned: Whether the fixed grids are trained from there.

    Returns:
        Number of sequences that calibration looked at.
    """
    if fixes_weights:
        for _, module in fake_quantized(model):
            weight_OI = matrix(module).detach()
            grid = find_grid(weight_OI, module.rounding.fmt, options.range, options.percentile)
            module.rounding.set_grid(grid, learned=learned)
    if not static_inputs(model):
        return 0
    assert data is not None
    calibration = options.calibration
    batches = sequences(data, calibration.sequences, calibration.seed)

    def run(batch: Any) -> None:
        model(**{name: tensor.to(model.device) for name, tensor in batch.items()})

    rounds = progress.track(batches, "calibrating", len(batches))
    calibrate(model, rounds, run, options.calibration, learned=learned)
    return len(batches)
