"""Options of the steps that round: where grids come from, what trains, what is written."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from quantship.frozen import Frozen
from quantship.quant.scheme import RangeName


class Calibration(Frozen):
    """Training data that runs through the model: algorithms look at it, static ranges fit it."""

    sequences: Annotated[int, Field(ge=1)] = 32
    """Training sequences to look at."""
    seed: Annotated[int, Field(ge=0)] | None = None
    """Which of the training sequences: a random choice by this seed; null: the first ones."""
    range: Literal["minmax", "moving_average", "percentile", "mse", "entropy"] = "moving_average"
    """What becomes the range: all that was seen, a moving average of each batch's least and
    greatest number, all but the outermost numbers, the range of least squared error, or the one
    whose rounded numbers are distributed most like the numbers themselves (least KL). The last and
    ``percentile`` clip the few huge activations that language models need: they suit encoders and
    image models."""
    percentile: float = Field(default=99.99, gt=50, le=100)
    """Per cent of the numbers that the range holds, for ``percentile``."""


class RoundingOptions(Frozen):
    """Where the grids come from, for QAT and PTQ alike."""

    range: RangeName = "minmax"
    """How far the weights' grids reach: ``minmax``: to the outermost weight; ``percentile``: less
    far, the outermost weights are clipped; ``mse``: as far as gives the least squared error;
    ``outermost``: the outermost weight is an end of the grid, whose scale may be negative for that,
    the best choice for PTQ in 4 bits without zero points."""
    percentile: float = Field(default=99.9, gt=50, le=100)
    """Per cent of the weights that a grid holds, for ``percentile``."""
    calibration: Calibration = Calibration()
    """What algorithms look at, and how static input ranges are found."""
    packed: bool = True
    """Store 4-bit codes two a byte where torchao has a tensor for that (it runs on CUDA, and on a
    CPU through ``quantship.load``); false: one a byte, which runs everywhere."""


class Lora(Frozen):
    """Train low-rank adapters instead of the weights; what is rounded is the sum of both."""

    rank: Annotated[int, Field(ge=1)] = 16
    """Rank of the adapters."""
    alpha: float = Field(default=32.0, gt=0)
    """Adapters are scaled by alpha / rank."""
    targets: tuple[str, ...] = ("all-linear",)
    """Layers that get an adapter, by the ends of their names, as ``q_proj``; ``all-linear``: all
    linear layers but the output head."""
    base: Literal["float32", "nf4"] = "float32"
    """Precision of the frozen weights below the adapters: ``nf4`` is QLoRA, 4 bits in blocks of 64.
    It starts from rounded weights, and that is what the adapters are merged into."""
