"""The report as one HTML file that needs nothing else: no network, no scripts, no fonts."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, Template

from quantship.reporting import (
    evidence_text,
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
from quantship.reporting.page import answers, errors, gates, panels, ranges, task_fronts, tasks
from quantship.reporting.ranking_schema import Ranking
from quantship.reporting.schema import Report
from quantship.reporting.task_scores import DATA


def render(report: Report) -> str:
    """The whole report as an HTML document; all text from outside is escaped."""
    shown = {
        "rows": table.rows(report),
        "fronts": figures.fronts(report),
        "evidence": _evidence(report),
        "ranking": None if report.ranking is None else ranking(report.ranking),
        "recovery": _recovery(report),
        "quantization": _quantization(report),
        "searches": _searches(report),
        "errors": _errors(report),
        "ranges": _ranges(report),
        "routes": facts.routes_table(report),
        "speed": _speed(report),
        "loss": figures.loss_curves(report),
        "training": facts.training_table(report),
        "data_tables": facts.data_tables(report),
    }
    return template("report.html.j2").render(
        report=report,
        description=report.recipe.get("description") or "",
        verdict=gates.verdict(report),
        headlines=headlines(report),
        warnings=warnings(report),
        contents=_contents(report, shown),
        **shown,
        columns=table.COLUMNS,
        units=table.UNITS,
        footnotes=table.footnotes(report),
        colours=figures.colours(report),
        palette=svg.PALETTE,
        dashes=panels.DASHES,
        environment=facts.environment(report),
        recipe_yaml=facts.recipe_yaml(report),
        command=facts.repeat_command(report),
        created=facts.created(report),
        duration=formatting.duration(report.duration_s),
        mb_statement=formatting.MB_STATEMENT,
        dash=formatting.DASH,
    )


def _contents(report: Report, shown: Mapping[str, Any]) -> dict[str, str]:
    """Titles of the sections that there are, by their ids, in reading order."""
    evidence = shown["evidence"] or {}
    titles = {
        "models": ("Models", True),
        "fronts": ("Accuracy, size and speed", shown["fronts"]),
        "tasks": (evidence_text.TITLE, evidence),
        "answers": ("Answers side by side", evidence.get("prompts")),
        "lost": (evidence_text.REGRESSIONS_TITLE, evidence.get("lost")),
        "ranking": (ranking_text.TITLE, shown["ranking"]),
        "recovery": (recovery_text.TITLE, shown["recovery"]),
        "quantization": (quantization_text.TITLE, shown["quantization"]),
        "searches": (search_text.TITLE, shown["searches"]),
        "errors": ("Rounding error by layer", shown["errors"]),
        "ranges": ("Input ranges by layer", shown["ranges"]),
        "routes": ("Other routes to the integers", shown["routes"]),
        "speed": ("Speed", shown["speed"]),
        "training": ("Training", shown["training"] or shown["loss"]),
        "data": ("Data", shown["data_tables"]),
        "notes": ("Notes", report.notes),
        "environment": ("Environment", True),
        "repeat": ("How to repeat", True),
    }
    return {key: title for key, (title, there) in titles.items() if there}


def _evidence(report: Report) -> dict[str, Any] | None:
    found = report.evidence
    if found is None:
        return None
    return {
        "overview": tasks.overview(report),
        "tasks": tasks.tasks(report),
        "explanation": tasks.explanation(report),
        "sentences": evidence_text.sentences(report),
        "tables": {
            title: content
            for title, content in (
                (evidence_text.CONTRASTS_TITLE, evidence_text.contrast_table(found)),
                (evidence_text.EXPORTS_TITLE, evidence_text.exports_table(found)),
            )
            if content is not None
        },
        "warnings": evidence_text.warnings(report),
        "fronts": task_fronts.draw(report, but=DATA),
        "prompts": answers.prompts(report),
        "lost": answers.lost(report),
    }


def _speed(report: Report) -> dict[str, Any] | None:
    drawing, lines = figures.speed_by_runtime(report), speed_text.sentences(report)
    if drawing is None and not lines:
        return None
    return {"drawing": drawing, "title": speed_text.TITLE, "lines": lines}


def _errors(report: Report) -> dict[str, Any] | None:
    content = errors.table(report)
    if content is None:
        return None
    return {
        "sets": errors.sets(report),
        "table": content,
        "explanation": errors.EXPLANATION,
        "outside": errors.outside(report),
    }


def _ranges(report: Report) -> dict[str, Any] | None:
    found = ranges.sets(report)
    return {"sets": found, "explanation": ranges.explanation(report)} if found else None


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
