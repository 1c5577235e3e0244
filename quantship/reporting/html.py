"""The report as one HTML file that needs nothing else: no network, no scripts, no fonts."""

from __future__ import annotations

from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, Template

from quantship.reporting import (
    facts,
    figures,
    formatting,
    recovery_figure,
    recovery_text,
    speed_text,
    svg,
    table,
)
from quantship.reporting.comparison import headlines, warnings
from quantship.reporting.schema import Report


def render(report: Report) -> str:
    """The whole report as an HTML document; all text from outside is escaped."""
    return _template().render(
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
        recovery=_recovery(report),
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
def _template() -> Template:
    environment = Environment(
        loader=PackageLoader("quantship.reporting"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template("report.html.j2")
