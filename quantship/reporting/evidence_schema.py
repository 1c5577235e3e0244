"""What ``report.json`` says of tasks, of how models compare on them, and of gates."""

from __future__ import annotations

from typing import Literal

from quantship.reporting.recovery_schema import Estimate
from quantship.reporting.section import Amount, Count, Section, Share


class MetricFacts(Section):
    """One number that a task gives."""

    name: str
    """As ``exact_match``."""
    better: Literal["higher", "lower"]
    """Which way is better."""
    kind: Literal["share", "perplexity", "nats", "number"]
    """A mean from 0 to 1; exp of a mean; a mean in nats; a mean of anything else."""
    judges: bool
    """Whether an example is either right or wrong."""


class TaskFacts(Section):
    """One task that models were evaluated on."""

    name: str
    """Name in this report."""
    task: str
    """Which task it is, as a recipe calls it."""
    metrics: list[MetricFacts]
    """What it gives, the headline first."""
    num_examples: Count
    """Examples that every model was given."""
    digest: str
    """SHA-256 over the examples, whatever models made of them."""
    notes: list[str]
    """What a reader should know: what was left out and why."""


class TaskResult(Section):
    """What one model made of a task."""

    metrics: dict[str, Estimate]
    """Each metric with its interval by the bootstrap; the interval is the value itself where there
    are too few examples."""
    extra: dict[str, float]
    """Numbers that are no mean over examples, and have no interval."""
    runtime: str
    """What ran the model."""
    seconds: Amount | None
    """Wall-clock seconds of the evaluation, not a benchmark; null: not recorded."""


class Contrast(Section):
    """How much a model differs from another on a metric, example by example."""

    task: str
    """Name of the task; ``data`` for the recipe's own evaluation data."""
    metric: str
    """Name of the metric."""
    model: str
    """Name of the model."""
    over: str
    """Name of the model it is compared with."""
    why: Literal["float", "ptq", "source"]
    """What the other one is: its float model, its PTQ twin, the checkpoint it was exported from."""
    difference: Estimate | None
    """The metric of ``model`` less that of ``over``; of perplexities their quotient less 1; null:
    too few examples."""
    recovered: Estimate | None = None
    """Share of what the PTQ twin lost against the float model that this QAT model recovered; null:
    not QAT, or PTQ lost nothing measurable."""
    tolerance: Amount | None = None
    """How far an exported model may be from its checkpoint, either way, by the arithmetic of the
    two; null: it was not exported, or nothing is stated of such a metric."""
    within: bool | None = None
    """Whether it is no further, or, where examples are either right or wrong, the interval holds 0;
    null: there is no tolerance."""


class LostExample(Section):
    """An example that one model has right and another has wrong."""

    id: str
    """Where it comes from."""
    prompt: str | None
    """What the models were given, shortened."""
    expected: str | None
    """What is right."""
    before: str | None
    """What the model said that has it right."""
    after: str | None
    """What the model said that has it wrong."""


class Regressions(Section):
    """Examples on which a model does worse than its float model."""

    task: str
    """Name of the task."""
    metric: str
    """Metric that judges."""
    model: str
    """Name of the model."""
    over: str
    """Name of the float model."""
    num_lost: Count
    """Examples that only the float model has right."""
    num_won: Count
    """Examples that only this model has right."""
    examples: list[LostExample]
    """The first of the lost ones; all are in the evaluations' examples.jsonl."""


class SideBySide(Section):
    """What each model says to one prompt."""

    task: str
    """Name of the task."""
    id: str
    """Where the prompt comes from."""
    prompt: str
    """What the models were given, shortened."""
    expected: str | None = None
    """What is right; null: nothing is."""
    answers: dict[str, str]
    """What each model said, greedily; shortened."""


class Gate(Section):
    """A limit of the recipe, and whether it holds."""

    model: str
    """Name of the model."""
    metric: str
    """What is limited, as ``perplexity`` or ``gsm8k.exact_match``."""
    over: str | None
    """Model that the limit is relative to; null: absolute."""
    rule: str
    """The limit in words, as ``at most 2 % above finetune``."""
    limit: float | bool
    """What ``value`` must keep to."""
    value: float | bool | None
    """What was measured, in the limit's terms; null: not measured, which is a failure."""
    measured: str
    """The same in words, as ``1.91 % above``; empty: not measured."""
    bound: float | None
    """End of the interval that was held against the limit, where the confidence bound is asked."""
    confidence: Share | None
    """Confidence of that bound; null: the value itself was held against the limit."""
    passed: bool
    """Whether it holds."""
    reason: str
    """The figure and the limit in a sentence."""


class Evidence(Section):
    """What tasks and gates say of the models of a run."""

    tasks: list[TaskFacts]
    """The recipe's own evaluation data first, as ``data``, then tasks in the order of the recipe.
    """
    contrasts: list[Contrast]
    """Models compared in pairs."""
    regressions: list[Regressions]
    """Where models lost examples."""
    generations: list[SideBySide]
    """What models say, side by side."""
    confidence: Share
    """Share of the resamples inside each interval."""
    num_resamples: Count
    """Paired resamples of the examples behind each interval."""
