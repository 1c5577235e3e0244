"""A comparison of runs as Markdown."""

from __future__ import annotations

from collections.abc import Iterator

from quantship.comparing import words
from quantship.comparing.schema import Comparison
from quantship.reporting.markdown import bullets, escape, fact_table, ranking


def render(comparison: Comparison) -> str:
    """Everything as GitHub-flavoured Markdown; all text from outside is escaped."""
    return "\n\n".join(part for part in _parts(comparison) if part) + "\n"


def _parts(comparison: Comparison) -> Iterator[str]:
    yield f"# {words.TITLE}"
    statement = words.statement(comparison)
    if statement is not None:
        yield f"> [!CAUTION]\n> **{escape(statement)}**"
    yield fact_table(words.runs(comparison))
    for group in comparison.groups:
        if group.ranking is not None:
            heading, *rest = ranking(group.ranking, group.fronts, words.algorithms(group))
            yield f"{heading}: {escape(words.title(group))}"
            yield from rest
        yield bullets(words.remarks(group))
    for task in comparison.tasks:
        yield f"## {escape(words.task_title(task))}"
        yield fact_table(words.task(task))
        yield escape(words.task_remark(task))
    for title, content in (
        (words.ENVIRONMENT_TITLE, words.environment(comparison)),
        (words.RECIPES_TITLE, words.recipes(comparison)),
    ):
        if content is not None:
            yield f"## {title}"
            yield fact_table(content)
    yield words.left_out(comparison) or ""
