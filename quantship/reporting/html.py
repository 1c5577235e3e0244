"""The report as one HTML file that needs nothing else: no network, no scripts, no fonts."""

from __future__ import annotations

from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, Template

from quantship.reporting import (
    facts,
    figures,
    formatting,
    quantization_text,
    ranking_text,
    recovery_figure,
    recovery_text,
    search_figure,
    search_text,
    speed_text,
    svg,
    table,
)
from quantship.reporting.comparison import headlines, warnings
from quantship.reporting.ranking_schema import Ranking
from quantship.reporting.schema import Report


def render(report: Report) -> str:
    """The whole report as an HTML document; all text from outside is escaped."""
    return template("report.html.j2").render(
        report=report,
        description=report.recipe.get("description") or "",
        headlines=headlines(report),
        warnings=warnings(report),
        rows=table.rows(report),
        columns=table.COLUMNS,
        units=table.UNITS,
        footnotes=table.footnotes(report),
        colours=figures.colours(report),
        speed={"title": speed_text.TITLE, "lines": speed_text.sentences(report)},
        ranking=None if report.ranking is None else ranking(report.ranking),
        quantization=_quantization(report),
        recovery=_recovery(report),
        searches=_searches(report),
        drawings=figures.draw(report),
        palette=svg.PALETTE,
        data_tables=facts.data_tables(report),
        routes=facts.routes_table(report),
        training=facts.training_table(report),
        environment=facts.environment(report),
        recipe_yaml=facts.recipe_yaml(report),
        command=facts.repeat_command(report),
        created=facts.created(report),
        duration=formatting.duration(report.duration_s),
        mb_statement=formatting.MB_STATEMENT,
        dash=formatting.DASH,
    )


def ranking(found: Ranking) -> dict[str, Any]:
    """What the template shows of a ranking."""
    return {
        "title": ranking_text.TITLE,
        "columns": ranking_text.NUMBERS,
        "rows": ranking_text.stacked(found),
        "explanation": ranking_text.explanation(found),
        "remarks": ranking_text.remarks(found),
        "seeds": ranking_text.seeds_table(found),
        "seeds_title": ranking_text.SEEDS_TITLE,
        "seeds_explanation": ranking_text.SEEDS_EXPLANATION,
    }


def _quantization(report: Report) -> dict[str, Any] | None:
    content = quantization_text.table(report)
    if content is None:
        return None
    return {
        "title": quantization_text.TITLE,
        "table": content,
        "explanation": quantization_text.EXPLANATION,
        "remarks": quantization_text.remarks(report),
    }


def _searches(report: Report) -> dict[str, Any] | None:
    content = search_text.table(report)
    if content is None:
        return None
    return {
        "title": search_text.TITLE,
        "table": content,
        "drawings": [one for search in report.searches for one in search_figure.draw(search)],
        "explanation": search_text.EXPLANATION,
        "remarks": search_text.remarks(report),
    }


def _recovery(report: Report) -> dict[str, Any] | None:
    content = recovery_text.table(report)
    if content is None:
        return None
    return {
        "title": recovery_text.TITLE,
        "table": content,
        "drawing": recovery_figure.draw(report),
        "explanation": recovery_text.explanation(report),
        "remarks": recovery_text.remarks(report),
    }


@cache
def template(name: str) -> Template:
    """A template that escapes all text from outside, by the name of its file."""
    environment = Environment(
        loader=PackageLoader("quantship.reporting"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template(name)
