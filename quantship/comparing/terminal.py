"""A comparison of runs for a terminal of 100 columns or more."""

from __future__ import annotations

from collections.abc import Iterator

from rich import box
from rich.console import Group as Stack
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from quantship.comparing import words
from quantship.comparing.schema import Comparison, Group
from quantship.reporting import ranking_text, terminal
from quantship.reporting.facts import FactTable


def render(comparison: Comparison) -> RenderableType:
    """Everything, the rankings first."""
    return Stack(*_parts(comparison))


def _parts(comparison: Comparison) -> Iterator[RenderableType]:
    statement = words.statement(comparison)
    if statement is not None:
        yield Text(f"{statement}\n", style=terminal.CAUTION)
    for group in comparison.groups:
        yield from _group(group)
    for task in comparison.tasks:
        yield _table(words.task_title(task), words.task(task))
        yield Text(words.task_remark(task), style=terminal.QUIET)
    yield _table(words.RUNS_TITLE, words.runs(comparison))
    for title, content in (
        (words.ENVIRONMENT_TITLE, words.environment(comparison)),
        (words.RECIPES_TITLE, words.recipes(comparison)),
    ):
        if content is not None:
            yield _table(title, content)
    more = words.left_out(comparison)
    if more is not None:
        yield Text(more, style=terminal.QUIET)


def _group(group: Group) -> Iterator[RenderableType]:
    if group.ranking is not None:
        yield terminal.ranking(group.ranking, f"{words.title(group)}: ranking")
    for front in group.fronts:
        content = ranking_text.front_table(front, words.algorithms(group))
        yield _table(ranking_text.FRONT_TITLES[front.cost], content)
    for line in words.remarks(group):
        yield Text(line, style=terminal.LEGIBLE)


def _table(title: str, content: FactTable) -> Table:
    result = Table(
        title=Text(f"\n{title}"),
        title_justify="left",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        pad_edge=False,
    )
    for name in content.header:
        result.add_column(Text(name), overflow="fold")
    for row in content.rows:
        result.add_row(*map(Text, row))
    return result
