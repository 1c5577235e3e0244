"""What ``report.json`` says of the share of PTQ's loss that QAT recovered."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from quantship.reporting.section import Count, Section, Share


class Estimate(Section):
    """A number and how sure it is."""

    value: float
    """On all evaluated sequences."""
    low: float
    """Lower end of the interval."""
    high: float
    """Upper end of the interval."""

    @model_validator(mode="after")
    def _in_order(self) -> Estimate:
        if self.low > self.high:
            raise ValueError("low is above high")
        return self


class ModelLoss(Section):
    """Loss of one model on the evaluation data."""

    name: str
    """Name of the model in this report."""
    mean_loss: float
    """Negative log-likelihood in nats a token."""
    perplexity: Annotated[float, Field(gt=0)]
    """exp(mean_loss)."""


class ShareRecovered(Section):
    """How much of what PTQ lost against a float model QAT won back."""

    reference: ModelLoss
    """The float model."""
    lost: Estimate | None
    """Loss of PTQ less that of the reference, in nats a token; null: too few sequences."""
    share: Estimate | None
    """(PTQ - QAT) / (PTQ - reference), in mean losses; 1: all of it; null: not defined."""
    undefined: str | None
    """Why there is no share; null: there is one."""

    @model_validator(mode="after")
    def _share_or_reason(self) -> ShareRecovered:
        if (self.share is None) != (self.undefined is not None):
            raise ValueError("give either a share or the reason why there is none")
        return self


class TrainingAmount(Section):
    """How long a model was trained."""

    num_steps: Count
    """Optimizer steps."""
    sequences_per_step: Count
    """Sequences in an optimizer step, on each device."""
    num_tokens: Count | None
    """Tokens it saw, padding left out; null: not recorded."""


class Control(Section):
    """A float model trained on from where QAT started: what is left is due to quantization."""

    recovered: ShareRecovered
    """The share against the trained float model."""
    training: TrainingAmount
    """How long the control was trained."""
    qat_training: TrainingAmount
    """How long QAT was."""
    equal_data: bool
    """Whether both saw the same sequences in the same order."""
    differences: list[str]
    """Other settings in which the trainings differ, in words."""


class Recovery(Section):
    """What quantization-aware training is worth: one QAT model beside its PTQ twin.

    Twins have the same scheme and were made from the same float model.
    """

    scheme: str
    """Quantization scheme of both."""
    method: str
    """What QAT did beyond plain training, as the recipe names it; empty: nothing."""
    qat: ModelLoss
    """The QAT model, as a torchao checkpoint."""
    ptq: ModelLoss
    """Its PTQ twin; of several, the one of the least loss on the evaluation data."""
    ptq_algorithm: str = ""
    """How that twin's integers were found, in words, as ``gptq, damping 0.1``; empty: unknown."""
    ptq_twins: list[str]
    """All its PTQ twins."""
    ptq_best_in: Share | None = None
    """Share of the resamples in which that twin is the best of them: how sure the choice is. Twins
    are chosen on the data that they are compared on, which favours the chosen one where the choice
    is not sure; null: there is one twin, or too few sequences."""
    gained: Estimate | None
    """Loss of PTQ less that of QAT, in nats a token; null: too few sequences."""
    recovered: ShareRecovered
    """The share against the float model that both were made from."""
    nearest: ModelLoss | None = None
    """The twin that was rounded to nearest by defaults; null: there is none, or it is ``ptq``."""
    of_nearest: ShareRecovered | None = None
    """The share of what that one lost; null: there is no such twin, or it is ``ptq``."""
    control: Control | None
    """The share against that model trained on in float; null: the recipe does not do so."""
    confidence: Share
    """Share of the resamples inside each interval."""
    num_resamples: Count
    """Paired resamples of the evaluated sequences behind each interval."""
    num_sequences: Count
    """Sequences that all these models were evaluated on."""
    num_tokens: Count
    """Tokens that were predicted in them."""
