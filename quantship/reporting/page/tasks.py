"""What models made of the tasks: a table, and for each metric a plot of dots and whiskers.

The plots are rows of a table with a strip of SVG in each, so that their text stays text, at any
width, and a reader of the source or a screen reader finds the numbers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from quantship.reporting import evidence_text, figures, formatting
from quantship.reporting.bootstrap import FEWEST_EXAMPLES
from quantship.reporting.comparison import float_reference, runtime
from quantship.reporting.evidence_schema import Contrast, Evidence, MetricFacts, TaskFacts
from quantship.reporting.page import axis, metric_text
from quantship.reporting.page.axis import Axis
from quantship.reporting.schema import ModelRow, Report
from quantship.reporting.task_scores import DATA

MOST_OPEN = 40
"""Lines of plots that are shown at once; further plots are closed until they are asked for."""


@dataclass(frozen=True)
class OverviewRow:
    """One model.

    Args:
        name: Of the model.
        colour: Place in the palette.
        cells: Value and interval of each task's headline metric.
    """

    name: str
    colour: int
    cells: list[tuple[str, str]]


@dataclass(frozen=True)
class Overview:
    """Models by headline metrics.

    Args:
        header: Each task, and below it its metric with its unit.
        rows: The models.
    """

    header: list[tuple[str, str]]
    rows: list[OverviewRow]


@dataclass(frozen=True)
class Strip:
    """Dot and whisker of one model, in per cent of the plot's width.

    Args:
        dot: Place of the value.
        low: Left end of the whisker.
        high: Right end.
        reference: Place of the float model's value; None: it is the float model, or has none.
        hollow: Whether it is a float model.
    """

    dot: float
    low: float
    high: float
    reference: float | None
    hollow: bool


@dataclass(frozen=True)
class Line:
    """One model in a plot.

    Args:
        name: Of the model.
        origin: Runtime and scheme.
        colour: Place in the palette.
        value: Formatted, with its unit.
        interval: Both ends of it; empty: there is none.
        change: Difference from the float model; empty: not compared.
        change_interval: Both ends of that.
        sure: Whether the sign of the difference is sure.
        worse: Whether it is for the worse.
        strip: What is drawn.
    """

    name: str
    origin: str
    colour: int
    value: str
    interval: str
    change: str
    change_interval: str
    sure: bool
    worse: bool
    strip: Strip


@dataclass(frozen=True)
class Plot:
    """One metric of one task.

    Args:
        title: The metric.
        better: Which way is better, in words.
        lines: The models, in the report's order.
        ticks: Place in per cent and text of each.
        spoken: What it shows, for those who cannot see it.
        over: What differences are from, in words; empty: there are none.
    """

    title: str
    better: str
    lines: list[Line]
    ticks: list[tuple[float, str]]
    spoken: str
    over: str


@dataclass(frozen=True)
class Task:
    """One task.

    Args:
        title: Its name in the report.
        about: What it is, and how many examples it has.
        headline: Plot of its first metric.
        others: Plots of its other metrics.
        notes: What a reader should know.
        open: Whether the plot is shown at once.
    """

    title: str
    about: str
    headline: Plot | None
    others: list[Plot] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    open: bool = True


def overview(report: Report) -> Overview | None:
    """Models by headline metrics; None without tasks."""
    evidence = report.evidence
    if evidence is None:
        return None
    tasks = [task for task in evidence.tasks if task.metrics]
    colours = figures.colours(report)
    rows = [
        OverviewRow(row.name, colours[row.group], [_cell(row, task) for task in tasks])
        for row in report.models
        if row.tasks
    ]
    return Overview([_heading(task) for task in tasks], rows) if rows else None


def _heading(task: TaskFacts) -> tuple[str, str]:
    metric = task.metrics[0]
    unit = metric_text.UNITS.get(metric.kind, "")
    below = metric_text.title(metric)
    return metric_text.task_title(task), f"{below}, {unit}" if unit else below


def _cell(row: ModelRow, task: TaskFacts) -> tuple[str, str]:
    metric = task.metrics[0]
    result = row.tasks.get(task.name)
    if result is None or metric.name not in result.metrics:
        return formatting.DASH, ""
    estimate = result.metrics[metric.name]
    return evidence_text.number(metric, estimate.value), evidence_text.interval_of(
        metric, estimate, task.num_examples
    )


def tasks(report: Report) -> list[Task]:
    """Every task, with a plot of each metric that some model has."""
    evidence = report.evidence
    if evidence is None:
        return []
    found, num_open = [], 0
    only_data = all(task.name == DATA for task in evidence.tasks)
    for task in evidence.tasks:
        plots = [plot for metric in task.metrics if (plot := _plot(report, evidence, task, metric))]
        kind = "" if task.task == task.name or task.name == DATA else f"{task.task}, "
        num_lines = len(plots[0].lines) if plots else 0
        # What is in the table of models already may stay closed.
        opens = num_open + num_lines <= MOST_OPEN and (task.name != DATA or only_data)
        num_open += num_lines if opens else 0
        found.append(
            Task(
                title=metric_text.task_title(task),
                about=f"{kind}{task.num_examples:,} examples",
                headline=plots[0] if plots else None,
                others=plots[1:],
                notes=task.notes,
                open=opens,
            )
        )
    return found


def explanation(report: Report) -> str:
    """How the plots are to be read."""
    evidence = report.evidence
    assert evidence is not None
    share = formatting.share(evidence.confidence)
    return (
        f"A dot is the value, the line its {share} interval, from {evidence.num_resamples:,} "
        "resamples of the examples, the same ones for all models; how much another seed of "
        "training or calibration would change is not in it, and tasks of fewer than "
        f"{FEWEST_EXAMPLES} examples have none. Hollow dots are float models; the dashed line is "
        "the float model that a row is compared with. A difference in bold has an interval that "
        "does not hold 0."
    )


def _plot(report: Report, evidence: Evidence, task: TaskFacts, metric: MetricFacts) -> Plot | None:
    measured = {
        row.name: (row, row.tasks[task.name].metrics[metric.name])
        for row in report.models
        if task.name in row.tasks and metric.name in row.tasks[task.name].metrics
    }
    if not measured:
        return None
    scale = axis.of(metric, [estimate for _, estimate in measured.values()])
    against = {
        one.model: one
        for one in evidence.contrasts
        if one.why == "float" and (one.task, one.metric) == (task.name, metric.name)
    }
    values = {name: estimate.value for name, (_, estimate) in measured.items()}
    colours = figures.colours(report)
    unit = metric_text.UNITS.get(metric.kind, "")
    lines = []
    for name, (row, estimate) in measured.items():
        contrast = against.get(name)
        over = _over(report, row, contrast)
        found = contrast.difference if contrast is not None else None
        lines.append(
            Line(
                name=name,
                origin=" · ".join(filter(None, (runtime(row), row.scheme))),
                colour=colours[row.group],
                value=f"{evidence_text.number(metric, estimate.value)} {unit}".rstrip(),
                interval=evidence_text.interval_of(metric, estimate, task.num_examples),
                change="" if found is None else metric_text.difference(metric, found),
                change_interval=""
                if found is None
                else metric_text.difference_interval(metric, found),
                sure=found is not None and metric_text.is_sure(found),
                worse=found is not None and metric_text.is_worse(metric, found),
                strip=Strip(
                    dot=scale.place(estimate.value),
                    low=scale.place(estimate.low),
                    high=scale.place(estimate.high),
                    reference=scale.place(values[over]) if over in values else None,
                    hollow=row.scheme is None,
                ),
            )
        )
    return Plot(
        title=metric_text.title(metric),
        better=f"{metric.better} is better",
        lines=lines,
        ticks=_ticks(metric, scale),
        spoken="; ".join(f"{line.name}: {line.value} ({line.interval})" for line in lines),
        over=_named(against),
    )


def _over(report: Report, row: ModelRow, contrast: Contrast | None) -> str:
    if contrast is not None:
        return contrast.over
    reference = float_reference(report, row)
    return "" if reference is None else reference.name


def _named(against: Mapping[str, Contrast]) -> str:
    names = list(dict.fromkeys(one.over for one in against.values() if one.difference))
    if not names:
        return ""
    return f"Against {names[0]}" if len(names) == 1 else "Against float"


def _ticks(metric: MetricFacts, scale: Axis) -> list[tuple[float, str]]:
    factor = 100 if metric.kind == "share" else 1
    return [(scale.place(one), f"{one * factor:,.6g}") for one in scale.ticks()]
