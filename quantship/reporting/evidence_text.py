"""What tasks say of the models, in words and as tables, the same for every form of the report."""

from __future__ import annotations

from collections.abc import Iterator

from quantship.reporting import formatting
from quantship.reporting.bootstrap import FEWEST_EXAMPLES
from quantship.reporting.evidence_schema import (
    Contrast,
    Evidence,
    MetricFacts,
    TaskFacts,
    TaskResult,
)
from quantship.reporting.facts import FactTable
from quantship.reporting.recovery_schema import Estimate
from quantship.reporting.schema import Report
from quantship.reporting.task_scores import DATA

TITLE = "Tasks"
CONTRASTS_TITLE = "Models compared, example by example"
EXPORTS_TITLE = "Exports against their checkpoints"
REGRESSIONS_TITLE = "Examples lost against the float model"
OVER_EXAMPLES = (
    "Intervals are over examples only: how much another seed of training, calibration or sampling "
    "would change is not in them."
)
OF_FLOAT, OF_TWIN = "its float model", "its PTQ twin"


def own_tasks(report: Report) -> list[TaskFacts]:
    """The recipe's tasks, its own evaluation data left out."""
    found = [] if report.evidence is None else report.evidence.tasks
    return [task for task in found if task.name != DATA]


def task_table(report: Report, task: TaskFacts) -> FactTable:
    """One row a model that was evaluated on a task, with all its metrics."""
    results = [(row.name, row.tasks[task.name]) for row in report.models if task.name in row.tasks]
    extra = list(dict.fromkeys(name for _, result in results for name in result.extra))
    header = ("Model", "Runtime", *(titled(one) for one in task.metrics), *extra)
    rows = tuple(
        (
            name,
            result.runtime,
            *(in_words(one, result.metrics[one.name], task.num_examples) for one in task.metrics),
            *(_extra(result, one) for one in extra),
        )
        for name, result in results
    )
    return FactTable(header, rows)


def about(task: TaskFacts) -> str:
    """A task in a line: ``gsm8k (task gsm8k): 200 examples, digest 0123456789ab``."""
    return (
        f"{task.name} (task {task.task}): {task.num_examples:,} examples, digest {task.digest[:12]}"
    )


def contrast_table(evidence: Evidence) -> FactTable | None:
    """One row a metric and pair, of quantized models with float ones and QAT with PTQ."""
    rows = tuple(
        (
            one.task,
            one.metric,
            one.model,
            f"{one.over} ({OF_FLOAT if one.why == 'float' else OF_TWIN})",
            apart(evidence, one),
            formatting.DASH if one.recovered is None else _share(one.recovered),
        )
        for one in evidence.contrasts
        if one.why != "source" and one.difference is not None
    )
    header = ("Task", "Metric", "Model", "Compared with", "Difference", "Recovered of PTQ's loss")
    return FactTable(header, rows) if rows else None


def exports_table(evidence: Evidence) -> FactTable | None:
    """One row a metric and exported model: how far from its checkpoint, and how far it may be."""
    rows = tuple(
        (
            one.task,
            one.metric,
            one.model,
            one.over,
            apart(evidence, one),
            _tolerance(evidence, one),
            "yes" if one.within else "NO",
        )
        for one in evidence.contrasts
        if one.within is not None
    )
    header = ("Task", "Metric", "Export", "Checkpoint", "Difference", "Tolerance", "Within")
    return FactTable(header, rows) if rows else None


def regressions_table(evidence: Evidence) -> FactTable | None:
    """One row a metric that judges and a model: how many examples it lost and won."""
    rows = tuple(
        (
            one.task,
            one.metric,
            one.model,
            one.over,
            f"{one.num_lost:,}",
            f"{one.num_won:,}",
            ", ".join(lost.id for lost in one.examples[:5]) or formatting.DASH,
        )
        for one in evidence.regressions
    )
    header = ("Task", "Metric", "Model", "Float model", "Lost", "Won", "The first lost")
    return FactTable(header, rows) if rows else None


def sentences(report: Report) -> list[str]:
    """The few things to say of tasks where there is little room."""
    evidence = report.evidence
    if evidence is None:
        return []
    names = {task.name for task in own_tasks(report)}
    headlines = {task.name: task.metrics[0].name for task in evidence.tasks if task.metrics}
    lines = [
        f"{one.model} recovers {_share(one.recovered)} of what {one.over} lost on {one.task} "
        f"({one.metric})"
        for one in evidence.contrasts
        if one.recovered is not None and one.task in names and one.metric == headlines[one.task]
    ]
    lines += [
        f"{one.model} lost {one.num_lost:,} examples of {one.task} that {one.over} has right, and "
        f"won {one.num_won:,}"
        for one in evidence.regressions
        if one.metric == headlines[one.task] and one.num_lost + one.num_won
    ]
    return lines


def warnings(report: Report) -> list[str]:
    """Exports that are further from their checkpoints than the tolerance of their arithmetic."""
    evidence = report.evidence
    if evidence is None:
        return []
    return [
        f"{one.model}: {one.metric} on {one.task} is further from that of {one.over} "
        f"({apart(evidence, one) or 'see the table'}) than the two may be by how they compute "
        f"({_tolerance(evidence, one)})."
        for one in evidence.contrasts
        if one.within is False
    ]


def notes(report: Report) -> list[str]:
    """What a reader should know of intervals, and exports that are too far from checkpoints."""
    return [] if report.evidence is None else [OVER_EXAMPLES, *warnings(report)]


def explanation(evidence: Evidence) -> str:
    """How the numbers are to be read."""
    sure = formatting.share(evidence.confidence)
    return (
        f"In brackets: {sure} intervals of the paired bootstrap, from {evidence.num_resamples:,} "
        f"resamples of the examples, the same ones for all models of a task. {OVER_EXAMPLES} "
        "An interval of no width says that all examples came out the same, not that the "
        f"number is certain; tasks of fewer than {FEWEST_EXAMPLES} examples have none. Differences "
        "of perplexities are relative, those of shares in percentage points."
    )


def titled(metric: MetricFacts) -> str:
    """A metric as the title of a column: ``exact_match, %``."""
    units = {"share": ", %", "nats": ", nats"}
    return metric.name + units.get(metric.kind, "")


def in_words(metric: MetricFacts, estimate: Estimate, num_examples: int) -> str:
    """A metric and its interval: ``61.25 (58.10 to 64.02)``."""
    value = number(metric, estimate.value)
    interval = interval_of(metric, estimate, num_examples)
    return f"{value} ({interval})" if interval else value


def interval_of(metric: MetricFacts, estimate: Estimate, num_examples: int) -> str:
    """An interval in words; empty where there are too few examples."""
    if num_examples < FEWEST_EXAMPLES:
        return ""
    return f"{number(metric, estimate.low)} to {number(metric, estimate.high)}"


def number(metric: MetricFacts, value: float) -> str:
    """A metric's number, without the unit that stands in its title."""
    if metric.kind == "share":
        return formatting.percent(value)
    return formatting.small(value) if metric.kind == "nats" else formatting.number(value)


def apart(evidence: Evidence, one: Contrast) -> str:
    """A difference and its interval: ``+1.91 % (+1.20 to +2.64)``; a dash: too few examples."""
    if one.difference is None:
        return formatting.DASH
    return difference(_metric(evidence, one), one.difference)


def difference(metric: MetricFacts, found: Estimate) -> str:
    """A difference of a metric, of perplexities relative: ``+1.91 % (+1.20 to +2.64)``."""
    kind = metric.kind
    value, low, high = (_signed(kind, each) for each in (found.value, found.low, found.high))
    units = {"perplexity": " %", "share": " points", "nats": " nats"}
    return f"{value}{units.get(kind, '')} ({low} to {high})"


def _signed(kind: str, value: float) -> str:
    if kind in ("perplexity", "share"):
        return f"{round(100 * value, 2) + 0.0:+.2f}"
    return f"{value:+.4f}" if kind == "nats" else f"{value:+.4g}"


def _tolerance(evidence: Evidence, one: Contrast) -> str:
    assert one.tolerance is not None
    kind = _metric(evidence, one).kind
    if kind in ("perplexity", "share"):
        return f"±{100 * one.tolerance:g} {'%' if kind == 'perplexity' else 'points'}"
    return f"±{one.tolerance:g} nats"


def _metric(evidence: Evidence, one: Contrast) -> MetricFacts:
    return next(_metrics(evidence, one.task, one.metric))


def _metrics(evidence: Evidence, task: str, name: str) -> Iterator[MetricFacts]:
    for facts in evidence.tasks:
        if facts.name == task:
            yield from (metric for metric in facts.metrics if metric.name == name)


def _share(share: Estimate) -> str:
    return f"{formatting.share(share.value)} ({formatting.share_range(share.low, share.high)})"


def _extra(result: TaskResult, name: str) -> str:
    return formatting.number(result.extra[name]) if name in result.extra else formatting.DASH
