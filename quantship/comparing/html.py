"""A comparison of runs as one HTML file that needs nothing else."""

from __future__ import annotations

from typing import Any

from quantship.comparing import figures, words
from quantship.comparing.schema import Comparison, Group
from quantship.hardware import versions
from quantship.reporting import html, ranking_text, svg
from quantship.reporting.formatting import MB_STATEMENT


def render(comparison: Comparison) -> str:
    """The whole comparison as an HTML document; all text from outside is escaped."""
    return html.template("compare.html.j2").render(
        title=words.TITLE,
        version=versions()["quantship"],
        statement=words.statement(comparison),
        groups=[_group(group, place) for place, group in enumerate(comparison.groups)],
        tasks=[
            {
                "title": words.task_title(task),
                "table": words.task(task),
                "remark": words.task_remark(task),
            }
            for task in comparison.tasks
        ],
        runs_title=words.RUNS_TITLE,
        runs=words.runs(comparison),
        environment_title=words.ENVIRONMENT_TITLE,
        environment=words.environment(comparison),
        recipes_title=words.RECIPES_TITLE,
        recipes=words.recipes(comparison),
        left_out=words.left_out(comparison),
        mb_statement=MB_STATEMENT,
        palette=svg.PALETTE,
    )


def _group(group: Group, place: int) -> dict[str, Any]:
    return {
        "title": words.title(group),
        "evaluation": group.evaluation,
        "ranking": None if group.ranking is None else html.ranking(group.ranking),
        "drawings": figures.draw(group, place),
        "fronts": [
            {
                "title": ranking_text.FRONT_TITLES[front.cost],
                "table": ranking_text.front_table(front, words.algorithms(group)),
            }
            for front in group.fronts
        ],
        "remarks": words.remarks(group),
    }
