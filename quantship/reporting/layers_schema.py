"""What ``report.json`` says of single layers: how far rounding moved them, what ranges they keep.

Layers go by the names of their modules, as ``model.layers.0.mlp.down_proj``.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from quantship.reporting.section import Amount, Count, Section


class RoundingErrors(Section):
    """How far rounding moved the weights of one model."""

    model: str
    """Name of the model, a quantized checkpoint that was not trained further."""
    layers: dict[str, Amount]
    """Frobenius norm of the rounding error of each layer's weight, by that of the weight as it
    stood just before: where an algorithm scales weights first, of the scaled one."""


class SeenInput(Section):
    """What was seen of one layer's input in the float model."""

    lowest: float
    """Least number."""
    highest: float
    """Greatest number."""
    inner_low: float | None
    """Lower end of the range that holds the share ``SeenInputs.inner_share`` of all numbers; null:
    it was not looked for."""
    inner_high: float | None
    """Upper end of it."""


class SeenInputs(Section):
    """What calibration saw of the inputs of one float model's layers."""

    model: str
    """Name of the float model."""
    num_sequences: Count
    """Calibration sequences."""
    num_tokens: Count
    """Tokens that the layer which saw most of them was given."""
    inner_share: Annotated[float, Field(gt=0, lt=1)]
    """Share of all numbers inside the inner ranges, as many left out on either side."""
    layers: dict[str, SeenInput]
    """By layer."""


class HeldRange(Section):
    """The range of inputs that one layer's codes can stand for; what lies beyond is clipped."""

    low: float
    """What the least code stands for."""
    high: float
    """What the greatest code stands for."""


class HeldRanges(Section):
    """The static input ranges of one model, as its checkpoint holds them."""

    model: str
    """Name of the model."""
    seen: int | None
    """Place in ``Layers.seen`` of the inputs that they follow from; null: that was not kept."""
    layers: dict[str, HeldRange]
    """By layer."""


class Layers(Section):
    """Single layers of the models of a run."""

    errors: list[RoundingErrors]
    """One entry for each model that was quantized without training, in the recipe's order."""
    seen: list[SeenInputs]
    """One entry for each float model and calibration data."""
    ranges: list[HeldRanges]
    """One entry for each model with static input ranges, in the recipe's order."""
