"""Hold the models of a run against the gates of its recipe."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from quantship.recipe.gate_metrics import SPEEDUPS, judged
from quantship.recipe.gates import Limit, number, unit
from quantship.recipe.language import Recipe
from quantship.reporting import bootstrap, gate_words
from quantship.reporting.bootstrap import Mean
from quantship.reporting.comparison import SHAPE, Speed, speed_ratio
from quantship.reporting.evidence import Measured
from quantship.reporting.evidence_schema import Gate
from quantship.reporting.gate_words import Rule
from quantship.reporting.schema import ModelRow, Report
from quantship.reporting.task_scores import DATA

Number = TypeVar("Number", float, NDArray[np.float64])
BOUNDS = ("min", "max", "min_ratio", "max_ratio", "max_increase", "max_decrease")
FLOORS = ("min", "min_ratio")
"""Bounds that the number has to reach; the others it must not pass."""
SPEEDS: dict[str, Speed] = {
    "prefill_speedup": "prefill_tokens_per_s",
    "decode_speedup": "decode_tokens_per_s",
}


def judge(recipe: Recipe, report: Report, measured: Sequence[Measured]) -> list[Gate]:
    """Every limit of the recipe, and whether it holds; what was not measured does not.

    Args:
        recipe: The resolved recipe.
        report: What the run found out.
        measured: Tasks with their resamples, the recipe's own evaluation data among them.
    """
    court = _Court(report, {task.scores.name: task for task in measured})
    return list(_all(recipe, court))


def _all(recipe: Recipe, court: _Court) -> Iterator[Gate]:
    for gate in recipe.gates:
        for metric, limit in gate.limits.items():
            for model in judged(recipe, gate, metric):
                for bound in BOUNDS:
                    if getattr(limit, bound) is not None:
                        yield court.limit(model, metric, limit, bound)
        if gate.codes_equal:
            for model in judged(recipe, gate, "codes_equal"):
                yield court.codes(model)


@dataclass(frozen=True, eq=False)
class _Court:
    """What gates are held against."""

    report: Report
    tasks: dict[str, Measured]

    def codes(self, model: str) -> Gate:
        parity = self._row(model).parity
        equal = None if parity is None else parity.codes_equal
        reference = "its checkpoint's" if parity is None else f"those of {parity.reference}"
        words = {True: "equal", False: "NOT equal", None: ""}[equal]
        said = "were not compared with" if equal is None else f"are {words} to"
        return Gate(
            model=model,
            metric="codes_equal",
            over=None,
            rule="equal to the bit",
            limit=True,
            value=equal,
            measured=words,
            bound=None,
            confidence=None,
            passed=equal is True,
            reason=f"integers and scales of {model} {said} {reference}",
        )

    def limit(self, model: str, metric: str, limit: Limit, bound: str) -> Gate:
        rule = _rule(metric, limit, bound, self._kind(metric))
        one = self._number(model, metric, limit.over)
        other = None if not rule.relative else self._number(str(limit.over), metric, None)
        value, reason = None, None
        if one is None or (rule.relative and other is None):
            missing = model if one is None else str(limit.over)
            reason = f"{metric} of {missing} was not measured"
        elif rule.by_other and other == 0:
            reason = f"{metric} of {limit.over} is 0, which nothing can be relative to"
        else:
            value = _term(rule, one, other if other is not None else one)
        surest = None
        if value is not None and limit.confidence is not None:
            surest, reason = self._bound(model, metric, limit.confidence, rule)
        held = value if limit.confidence is None else surest
        passed = held is not None and (
            held >= rule.limit if bound in FLOORS else held <= rule.limit
        )
        return Gate(
            model=model,
            metric=metric,
            over=rule.over,
            rule=gate_words.rule(rule),
            limit=rule.limit,
            value=value,
            measured="" if value is None else gate_words.measured(rule, value, surest),
            bound=surest,
            confidence=limit.confidence,
            passed=passed,
            reason=reason or gate_words.reason(rule, model, one, other, value, surest),
        )

    def _row(self, model: str) -> ModelRow:
        return next(row for row in self.report.models if row.name == model)

    def _number(self, model: str, metric: str, over: str | None) -> float | None:
        row = self._row(model)
        if metric in SPEEDUPS:
            return self._speedup(row, SPEEDS[metric], over)
        if metric in READ:
            return _read(row, metric)
        task, _, name = metric.partition(".")
        result = row.tasks.get(task)
        if result is None:
            return None
        found = result.metrics.get(name)
        return result.extra.get(name) if found is None else found.value

    def _speedup(self, row: ModelRow, speed: Speed, over: str | None) -> float | None:
        if over is None:
            return speed_ratio(self.report, row, speed)
        one, other = row.benchmark, self._row(over).benchmark
        if one is None or other is None or any(getattr(one, k) != getattr(other, k) for k in SHAPE):
            return None
        below = float(getattr(other, speed))
        return float(getattr(one, speed)) / below if below else None

    def _kind(self, metric: str) -> gate_words.Kind:
        if metric in gate_words.KINDS:
            return gate_words.KINDS[metric]
        task, _, name = metric.partition(".")
        found = self.tasks[task].metric(name) if task in self.tasks else None
        return "number" if found is None or found.kind == "perplexity" else found.kind

    def _bound(
        self, model: str, metric: str, confidence: float, rule: Rule
    ) -> tuple[float | None, str | None]:
        """The end of the one-sided interval; or None, and why there is none."""
        task, _, name = metric.rpartition(".")
        measured = self.tasks.get(task or DATA)
        if measured is None or measured.metric(name) is None:
            return None, f"{metric} is no mean over examples, so that no bound can be told"
        if not measured.means:
            few = len(measured.scores.any_model.ids)
            return None, f"{few} examples are too few to be sure of {metric} of {model}"
        one = _metric(measured, model, name)
        other = (
            one if rule.over is None or not rule.relative else _metric(measured, rule.over, name)
        )
        with np.errstate(divide="ignore", invalid="ignore"):
            resampled = _term(rule, one, other)
        found = bootstrap.bound(Mean(0.0, resampled), confidence, upper=rule.bound not in FLOORS)
        if not np.isfinite(found):
            return None, f"{metric} of {rule.over} is 0 too often to tell a bound"
        return found, None


def _metric(measured: Measured, model: str, name: str) -> NDArray[np.float64]:
    """The metric on each resample."""
    resampled = measured.means[model, name].resampled
    metric = measured.metric(name)
    assert metric is not None
    return np.exp(resampled) if metric.kind == "perplexity" else resampled


def _rule(metric: str, limit: Limit, bound: str, kind: gate_words.Kind) -> Rule:
    given = getattr(limit, bound)
    share = isinstance(given, str) and unit(given) == "%"
    return Rule(
        metric=metric,
        kind=kind,
        bound=bound,
        limit=number(given) if isinstance(given, str) else given,
        over=limit.over if bound not in ("min", "max") or metric in SPEEDUPS else None,
        by_other=bound in ("min_ratio", "max_ratio")
        or (share and bound in ("max_increase", "max_decrease")),
        confidence=limit.confidence,
    )


def _term(rule: Rule, one: Number, other: Number) -> Number:
    """A number in the terms of a limit, over another where the limit is relative."""
    if rule.bound in ("min", "max"):
        return one
    if rule.bound in ("min_ratio", "max_ratio"):
        return one / other
    if rule.bound == "max_increase":
        return one / other - 1 if rule.by_other else one - other
    return 1 - one / other if rule.by_other else other - one


def _read(row: ModelRow, metric: str) -> float | None:
    """What a row of the report says of a metric; None: nothing."""
    part, field = READ[metric]
    holder = row if part is None else getattr(row, part)
    value: float | None = None if holder is None else getattr(holder, field)
    return value


READ = {
    "perplexity": ("metrics", "perplexity"),
    "token_accuracy": ("metrics", "token_accuracy"),
    "kl": ("parity", "kl_nats"),
    "top1_agreement": ("parity", "top1_agreement"),
    "size": (None, "size_bytes"),
    "compression": (None, "compression"),
    "prefill_speed": ("benchmark", "prefill_tokens_per_s"),
    "decode_speed": ("benchmark", "decode_tokens_per_s"),
    "peak_memory": ("benchmark", "peak_rss_bytes"),
}
"""Where a row of the report holds a metric."""
