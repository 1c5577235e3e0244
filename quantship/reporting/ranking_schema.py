"""What ``report.json`` says of how quantized models were made, and of which is the best."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, JsonValue

from quantship.reporting.recovery_schema import Estimate
from quantship.reporting.section import Amount, Count, Section, Share


class CalibrationUsed(Section):
    """The training data that a quantization looked at."""

    sequences: Count
    """Sequences that ran through the model."""
    tokens: Count | None = None
    """Tokens in them; null: not recorded."""
    seed: Count | None = None
    """Seed of the random choice among the training sequences; null: the first ones."""


class Quantization(Section):
    """How a quantize step found a model's integers."""

    algorithm: str
    """Word of the algorithm in recipes, as ``gptq``."""
    words: str
    """The algorithm and its options, as far as they are not the defaults: ``gptq, damping 0.1``."""
    settings: dict[str, JsonValue]
    """All options of the step that may change its result, defaults filled in."""
    plain: bool
    """Whether it is rounding to nearest with default ranges: what the others are held against."""
    calibration: CalibrationUsed | None = None
    """The data it looked at; null: none."""
    seconds: Amount | None = None
    """Wall-clock seconds that it took; null: not recorded."""
    peak_rss_bytes: Count | None = None
    """Most resident memory of the process while it ran, in bytes; on Linux, elsewhere since the
    process began; null: not recorded."""
    blocks_resumed: Count | None = None
    """Blocks of the model that an interrupted run had finished before; null: not recorded."""
    bias_corrected: Count | None = None
    """Layers whose bias was corrected; null: not recorded."""
    remarks: list[str] = Field(default_factory=list)
    """What a reader should know: fallbacks, layers that no data reached, broken numbers."""


class Difference(Section):
    """A difference of losses in nats a token, and how sure it is."""

    value: float
    """On all evaluated sequences."""
    low: float | None
    """Lower end of the interval; null: there is none."""
    high: float | None
    """Upper end of the interval; null: there is none."""


class ShareOfNearest(Section):
    """How much of what rounding to nearest lost a model did not lose."""

    nearest: str
    """The model of the same scheme and float source that was rounded to nearest, by defaults."""
    share: Estimate | None
    """(nearest - model) / (nearest - float), in mean losses; null: not defined."""
    undefined: str | None
    """Why there is no share; null: there is one."""


class Ranked(Section):
    """One quantized model in its place."""

    name: str
    """Name of the model."""
    algorithm: str
    """How its integers were found, in words; empty: not recorded."""
    scheme: str | None
    """Quantization scheme; null: a float model."""
    size_bytes: Count
    """Bytes of the weights on disk."""
    place_in_scheme: Count
    """1: the best of its scheme."""
    mean_loss: float
    """Negative log-likelihood in nats a token."""
    perplexity: Annotated[float, Field(gt=0)]
    """exp(mean_loss)."""
    source: str | None
    """Float model that its weights come from; null: not recorded."""
    lost: Difference | None
    """Its loss less that of its float source; null: that was not evaluated."""
    behind_best: Difference | None
    """How much more it lost than the best; null: it is the best."""
    ahead_of_next: Difference | None
    """How much less it lost than the next; null: it is the last."""
    of_nearest: ShareOfNearest | None = None
    """Against rounding to nearest; null: there is no such twin, or it is that twin."""


class Seeds(Section):
    """One quantization with calibration data of several seeds."""

    models: list[str]
    """The models, which differ in nothing but the seed."""
    algorithm: str
    """How their integers were found, in words."""
    scheme: str
    """Quantization scheme."""
    mean_loss: float
    """Mean of their losses in nats a token."""
    spread: Amount
    """Standard deviation of these (of a sample: divided by one less than their number)."""
    lowest: float
    """Least of these losses."""
    highest: float
    """Largest of these losses."""
    share: float | None = None
    """Mean share recovered of what rounding to nearest lost; null: not defined."""
    share_spread: Amount | None = None
    """Standard deviation of these shares; null: not defined."""


class Ranking(Section):
    """All quantized models that were evaluated on the same data, best first.

    Checkpoints only: an export has the integers of its checkpoint.
    """

    by: Literal["lost", "loss"]
    """What is compared: the loss added to the float source's, or the loss itself."""
    entries: list[Ranked]
    """The models, best first."""
    seeds: list[Seeds]
    """One entry a quantization that was repeated with other calibration data."""
    confidence: Share
    """Share of the resamples inside each interval."""
    num_resamples: Count
    """Paired resamples of the evaluated sequences behind each interval; 0: no intervals."""
    num_sequences: Count | None
    """Sequences that all these models were evaluated on; null: not known."""
    no_intervals: str | None
    """Why there are no intervals; null: there are."""


class FrontPoint(Section):
    """One model on a Pareto front."""

    name: str
    """Name of the model."""
    cost: Amount
    """Bytes on disk, or tokens decoded a second."""
    perplexity: Annotated[float, Field(gt=0)]
    """Perplexity on the evaluation data."""


class Front(Section):
    """The models that no other beats in both: none is as good and cheaper, or as cheap and better.

    By the numbers as measured; that one is better for sure is for the ranking's intervals to say.
    """

    cost: Literal["size_bytes", "decode_tokens_per_s"]
    """What perplexity is set against; of bytes less is better, of speed more."""
    points: list[FrontPoint]
    """The models on the front, cheapest first."""
