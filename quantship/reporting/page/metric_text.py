"""Metrics of tasks in the words of the page, where a value and its interval stand apart."""

from __future__ import annotations

from quantship.reporting import formatting
from quantship.reporting.evidence_schema import MetricFacts, TaskFacts
from quantship.reporting.recovery_schema import Estimate
from quantship.reporting.task_scores import DATA

UNITS = {"share": "%", "nats": "nats"}
UNITS_OF_DIFFERENCES = {"share": "points", "perplexity": "%", "nats": "nats"}


def title(metric: MetricFacts) -> str:
    """A metric's name as a heading has it: ``exact match``."""
    name = metric.name.removesuffix("_nats") if metric.kind == "nats" else metric.name
    return name.replace("_", " ")


def task_title(task: TaskFacts) -> str:
    """A task's name as a heading has it."""
    return "Evaluation data" if task.name == DATA else task.name


def difference(metric: MetricFacts, found: Estimate) -> str:
    """How much a model differs from another: ``+1.25 points``, ``-0.31 %``."""
    unit = UNITS_OF_DIFFERENCES.get(metric.kind, "")
    return f"{_signed(metric, found.value)} {unit}".rstrip()


def difference_interval(metric: MetricFacts, found: Estimate) -> str:
    """Both ends of the interval of a difference; empty where there is none."""
    if found.low == found.high:
        return ""
    return f"{_signed(metric, found.low)} to {_signed(metric, found.high)}"


def is_sure(found: Estimate) -> bool:
    """Whether a difference's sign is sure: its interval does not hold 0."""
    return found.low > 0 or found.high < 0


def is_worse(metric: MetricFacts, found: Estimate) -> bool:
    """Whether a difference is for the worse."""
    return found.value < 0 if metric.better == "higher" else found.value > 0


def _signed(metric: MetricFacts, number: float) -> str:
    if metric.kind in ("share", "perplexity"):
        text = f"{100 * number:+.2f}"
    elif metric.kind == "nats":
        text = formatting.small(number)
        text = text if text.startswith("-") else f"+{text}"
    else:
        text = f"{number:+,.4g}"
    return text if any(digit in "123456789" for digit in text) else "0"
