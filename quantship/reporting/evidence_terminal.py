"""Tasks and gates for a terminal of 100 columns or more."""

from __future__ import annotations

from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from quantship.reporting import evidence_text, gate_words
from quantship.reporting.evidence_schema import TaskFacts
from quantship.reporting.formatting import DASH
from quantship.reporting.schema import ModelRow, Report

QUIET = "dim"
LOUD = "bold white on red"
MOST_COLUMNS = 5
"""Tasks that stand side by side; the page has the others."""
MOST_LINES = 6
MOST_GATES = 16


def tasks(report: Report) -> Group | None:
    """The headline of each task with its interval below, a row a model; None without tasks."""
    shown = [task for task in evidence_text.own_tasks(report) if task.metrics]
    evidence = report.evidence
    if not shown or evidence is None:
        return None
    result = _table(f"{report.name}: tasks")
    result.add_column("Model", overflow="fold", min_width=16)
    for task in shown[:MOST_COLUMNS]:
        title = f"{task.name}\n{evidence_text.titled(task.metrics[0])}"
        result.add_column(Text(title), justify="right", no_wrap=True)
    for row in report.models:
        if any(task.name in row.tasks for task in shown):
            cells = (_cell(row, task) for task in shown[:MOST_COLUMNS])
            result.add_row(Text(row.name), *cells)
    return Group(result, _remarks(report, len(shown)))


def gates(report: Report) -> Group | None:
    """A row a gate, with ✓ or ✗; of many, only those that fail. None where the recipe has none."""
    if not report.gates:
        return None
    many = len(report.gates) > MOST_GATES
    shown = [gate for gate in report.gates if not (many and gate.passed)]
    content = gate_words.table(shown)
    said = Text(f"{gate_words.summary(report.gates)}.")
    if content is None:
        return Group(said)
    result = _table(f"{report.name}: gates")
    for title in content.header:
        result.add_column(title, overflow="fold")
    for gate, row in zip(shown, content.rows, strict=True):
        sign = Text(row[0], "green" if gate.passed else LOUD)
        result.add_row(sign, *(Text(cell) for cell in row[1:]))
    return Group(result, said)


def _table(title: str) -> Table:
    return Table(
        title=Text(title),
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        pad_edge=False,
        title_justify="left",
    )


def _cell(row: ModelRow, task: TaskFacts) -> Text:
    if task.name not in row.tasks:
        return Text(DASH)
    metric = task.metrics[0]
    found = row.tasks[task.name].metrics[metric.name]
    text = Text(evidence_text.number(metric, found.value))
    interval = evidence_text.interval_of(metric, found, task.num_examples)
    return text.append(f"\n{interval}", style=QUIET) if interval else text


def _remarks(report: Report, num_tasks: int) -> Text:
    text = Text(
        "Below: 95 % intervals of the paired bootstrap, over examples only, not over seeds.",
        style=QUIET,
    )
    if num_tasks > MOST_COLUMNS:
        text.append(f" {num_tasks - MOST_COLUMNS} more tasks are in the report.")
    lines = evidence_text.sentences(report)
    for line in lines[:MOST_LINES]:
        text.append(f"\n{line}")
    if len(lines) > MOST_LINES:
        text.append(f"\n{len(lines) - MOST_LINES} more such lines are in the report.")
    return text
