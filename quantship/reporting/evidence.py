"""What tasks say of the models of a run: means with intervals, and models compared in pairs."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from quantship.reporting import bootstrap, export_tolerance, generations, regressions
from quantship.reporting.bootstrap import Mean
from quantship.reporting.evidence_schema import (
    Contrast,
    Evidence,
    MetricFacts,
    TaskFacts,
    TaskResult,
)
from quantship.reporting.export_tolerance import Tolerance
from quantship.reporting.pairs import Pair
from quantship.reporting.recovery_schema import Estimate
from quantship.reporting.task_scores import ModelScores, TaskScores


@dataclass(frozen=True, eq=False)
class Measured:
    """A task with the resamples that all comparisons of its models share.

    Args:
        scores: What the models made of it.
        means: Mean by model and metric; empty where there are too few examples.
    """

    scores: TaskScores
    means: Mapping[tuple[str, str], Mean]

    def metric(self, name: str) -> MetricFacts | None:
        """What is known of a metric by name; None: the task does not give it."""
        return next((one for one in self.scores.metrics if one.name == name), None)


def measure(
    scores: TaskScores, *, seed: int, num_resamples: int = bootstrap.NUM_RESAMPLES
) -> Measured:
    """Resample the examples of a task, the same for all its models and metrics."""
    weights = scores.any_model.weights
    if int((weights > 0).sum()) < bootstrap.FEWEST_EXAMPLES or not scores.metrics:
        return Measured(scores, {})
    sums = {
        (model, metric.name): one.sums[metric.name]
        for model, one in scores.models.items()
        for metric in scores.metrics
    }
    return Measured(scores, bootstrap.means(sums, weights, seed=seed, num_resamples=num_resamples))


def results(measured: Sequence[Measured]) -> dict[str, dict[str, TaskResult]]:
    """What each model made of each task, by the names of both."""
    found: dict[str, dict[str, TaskResult]] = {}
    for task in measured:
        for name, scores in task.scores.models.items():
            found.setdefault(name, {})[task.scores.name] = TaskResult(
                metrics={one.name: _estimate(task, name, one) for one in task.scores.metrics},
                extra=dict(scores.extra),
                runtime=scores.runtime,
                seconds=scores.seconds,
            )
    return found


def build(
    measured: Sequence[Measured],
    pairs: Mapping[str, Sequence[Pair]],
    arithmetics: Mapping[str, str | None],
) -> Evidence:
    """Everything that tasks say, beside what each model made of them.

    Args:
        measured: The tasks, in the order of the report.
        pairs: The models to compare, by the task's name.
        arithmetics: How each model computes with activations; None: in float.
    """
    return Evidence(
        tasks=[_facts(one.scores) for one in measured],
        contrasts=[
            contrast(task, metric, pair, _tolerance(pair, arithmetics))
            for task in measured
            for pair in pairs[task.scores.name]
            for metric in task.scores.metrics
        ],
        regressions=[
            found
            for task in measured
            for pair in pairs[task.scores.name]
            if pair.why == "float"
            for found in regressions.find(task.scores, pair.model, pair.over)
        ],
        generations=[one for task in measured for one in generations.collect(task.scores)],
        confidence=bootstrap.CONFIDENCE,
        num_resamples=bootstrap.NUM_RESAMPLES,
    )


def contrast(
    task: Measured, metric: MetricFacts, pair: Pair, tolerance: Tolerance | None
) -> Contrast:
    """How a pair of models compare on a metric."""
    estimate = difference(task, metric, pair.model, pair.over)
    allowed = None if tolerance is None else tolerance.of(metric)
    return Contrast(
        task=task.scores.name,
        metric=metric.name,
        model=pair.model,
        over=pair.over,
        why=pair.why,
        difference=estimate,
        recovered=_recovered(task, metric, pair),
        tolerance=allowed,
        within=None if allowed is None else _within(task, metric, pair, estimate, allowed),
    )


def difference(task: Measured, metric: MetricFacts, model: str, over: str) -> Estimate | None:
    """The metric of one model less that of another, of perplexities their quotient less 1.

    None where there are too few examples to tell.
    """
    if not task.means:
        return None
    means = task.means
    found = bootstrap.difference(means[model, metric.name], means[over, metric.name])
    if metric.kind != "perplexity":
        return found
    return _mapped(found, math.expm1)


def _estimate(task: Measured, model: str, metric: MetricFacts) -> Estimate:
    value = task.scores.models[model].values[metric.name]
    if not task.means:
        return Estimate(value=value, low=value, high=value)
    low, high = bootstrap.interval(task.means[model, metric.name].resampled)
    if metric.kind == "perplexity":
        low, high = math.exp(low), math.exp(high)
    return Estimate(value=value, low=low, high=high)


def _mapped(estimate: Estimate, function: Callable[[float], float]) -> Estimate:
    return Estimate(
        value=function(estimate.value), low=function(estimate.low), high=function(estimate.high)
    )


def _recovered(task: Measured, metric: MetricFacts, pair: Pair) -> Estimate | None:
    """The share of what the twin lost; in losses, of which less is better."""
    if pair.why != "ptq" or pair.reference is None or not task.means:
        return None
    reference, ptq, qat = (
        _loss(task.means[name, metric.name], metric)
        for name in (pair.reference, pair.over, pair.model)
    )
    return bootstrap.share_recovered(reference, ptq, qat)


def _loss(mean: Mean, metric: MetricFacts) -> Mean:
    return mean if metric.better == "lower" else Mean(-mean.value, -mean.resampled)


def _tolerance(pair: Pair, arithmetics: Mapping[str, str | None]) -> Tolerance | None:
    if pair.why != "source":
        return None
    return export_tolerance.choose(arithmetics[pair.model], arithmetics[pair.over])


def _within(
    task: Measured, metric: MetricFacts, pair: Pair, estimate: Estimate | None, allowed: float
) -> bool:
    one, other = (_value(task.scores.models[name], metric) for name in (pair.model, pair.over))
    apart = one / other - 1 if metric.kind == "perplexity" else one - other
    holds_zero = estimate is not None and estimate.low <= 0 <= estimate.high
    return abs(apart) <= allowed or (metric.judges and holds_zero)


def _value(scores: ModelScores, metric: MetricFacts) -> float:
    return scores.values[metric.name]


def _facts(scores: TaskScores) -> TaskFacts:
    return TaskFacts(
        name=scores.name,
        task=scores.task,
        metrics=list(scores.metrics),
        num_examples=len(scores.any_model.ids),
        digest=scores.any_model.digest,
        notes=list(scores.notes),
    )
