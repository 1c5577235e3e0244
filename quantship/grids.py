"""The grids of a fake-quantized model that do not follow from the numbers at hand."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from quantship import progress
from quantship.algorithms import rtn
from quantship.data.prepare import collate
from quantship.quant.calibration import calibrate, static_inputs
from quantship.recipe.rounding_options import Calibration, RoundingOptions

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
        rtn.fix_grids(model, options.range, options.percentile, learned=learned)
    if not static_inputs(model):
        return 0
    assert data is not None
    batches = _batches(data, options.calibration)

    def run(batch: Any) -> None:
        model(**{name: tensor.to(model.device) for name, tensor in batch.items()})

    rounds = progress.track(batches, "calibrating", len(batches))
    calibrate(model, rounds, run, options.calibration, learned=learned)
    return len(batches)


def _batches(data: Path, options: Calibration) -> list[dict[str, Any]]:
    from datasets import load_from_disk

    dataset = load_from_disk(str(data / "train"))
    # One by one: padding would count as data.
    rows = [dataset[index] for index in range(min(options.sequences, len(dataset)))]
    return [collate([row], pad_token_id=0) for row in rows]
