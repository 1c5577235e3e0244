"""The plots of each task's headline metric against size and decode speed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from quantship.reporting import evidence_text, figures, front_figure, svg
from quantship.reporting.canvas import Drawing
from quantship.reporting.comparison import is_wrong
from quantship.reporting.evidence_schema import MetricFacts, TaskFacts
from quantship.reporting.front_figure import Measure, Point
from quantship.reporting.fronts import COSTS, Cost, cost_of
from quantship.reporting.page import metric_text
from quantship.reporting.schema import ModelRow, Report


@dataclass(frozen=True)
class TaskFronts:
    """The plots of one task.

    Args:
        title: The task and its metric.
        drawings: Against size, and against decode speed where that was measured.
    """

    title: str
    drawings: list[Drawing]


def draw(report: Report, *, but: str) -> list[TaskFronts]:
    """The plots of every task that more than one model was evaluated on.

    Args:
        report: The report.
        but: Name of a task whose plots there are already.
    """
    tasks = [] if report.evidence is None else report.evidence.tasks
    found = [
        _task(report, task, place)
        for place, task in enumerate(tasks)
        if task.metrics and task.name != but
    ]
    return [one for one in found if one.drawings]


def _task(report: Report, task: TaskFacts, place: int) -> TaskFronts:
    metric = task.metrics[0]
    name = f"{metric_text.task_title(task)} {metric_text.title(metric)}"
    unit = metric_text.UNITS.get(metric.kind, "")
    measure = Measure(
        name=name,
        axis=f"{name}, {unit}" if unit else name,
        text=partial(evidence_text.number, metric),
        higher_is_better=metric.better == "higher",
        scale=100.0 if metric.kind == "share" else 1.0,
        is_ratio=metric.kind == "perplexity",
    )
    points = [
        _point(report, row, task, metric)
        for row in report.models
        if task.name in row.tasks and metric.name in row.tasks[task.name].metrics
    ]
    if len(points) < 2:
        return TaskFronts(name, [])
    fronts = {cost: _front(points, cost, measure) for cost in COSTS}
    drawings = front_figure.draw_measure(
        points, fronts, (), measure, prefix=f"task-{place}-", left_out=""
    )
    return TaskFronts(name, drawings)


def _point(report: Report, row: ModelRow, task: TaskFacts, metric: MetricFacts) -> Point:
    estimate = row.tasks[task.name].metrics[metric.name]
    colour = svg.PALETTE[figures.colours(report)[row.group]][0]
    interval = None if estimate.low == estimate.high else (estimate.low, estimate.high)
    return Point(row, row.name, row.group, colour, row.name, estimate.value, interval)


def _front(points: Sequence[Point], cost: Cost, measure: Measure) -> list[str]:
    """Names from the cheapest on, each better than all before it; none whose codes are wrong."""
    dear = 1.0 if cost == "size_bytes" else -1.0
    sign = -1.0 if measure.higher_is_better else 1.0
    sound = [
        (dear * price, sign * one.value, one.name)
        for one in points
        if not is_wrong(one.row) and (price := cost_of(one.row, cost)) is not None
    ]
    front: list[tuple[float, str]] = []
    for _, value, name in sorted(sound):
        if not front or value < front[-1][0]:
            front.append((value, name))
    return [name for _, name in front]
