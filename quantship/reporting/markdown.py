"""The report as Markdown, for a pull request or a model's repository."""

from __future__ import annotations

import re

from quantship.reporting import facts, recovery_text, speed_text, table
from quantship.reporting.comparison import headlines, warnings
from quantship.reporting.formatting import MB_STATEMENT, duration
from quantship.reporting.schema import Report

SPECIAL = re.compile(r"([\\`*\[\]<>|#~])")
TEXT_COLUMNS = ("Model", "Runtime", "Scheme")


def render(report: Report) -> str:
    """The whole report as GitHub-flavoured Markdown; all text from outside is escaped."""
    parts = [
        f"# {escape(report.name)}",
        escape(str(report.recipe.get("description") or "")),
        *(f"> [!CAUTION]\n> **WARNING: {escape(warning)}**" for warning in warnings(report)),
        _headlines(report),
        _environment(report),
        "## Models",
        _models(report),
        _bullets(table.footnotes(report)),
        *_recovery(report),
        *_speed(report),
        *_routes(report),
        "## Data",
        *(_table(item) for item in facts.data_tables(report)),
        *_training(report),
        *_notes(report),
        "## How to repeat",
        _repeat(report),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def escape(text: str) -> str:
    """Text that Markdown shows as it stands, on one line."""
    return SPECIAL.sub(r"\\\1", " ".join(text.split()))


def _headlines(report: Report) -> str:
    return "\n".join(
        f"- {item.label}: **{escape(item.value)}** ({escape(item.detail)})"
        for item in headlines(report)
    )


def _environment(report: Report) -> str:
    machine = "; ".join(f"{name}: {value}" for name, value in facts.environment(report))
    made = f"quantship {report.quantship_version}, {facts.created(report)}"
    return escape(f"Made by {made} in {duration(report.duration_s)}. {machine}.")


def _models(report: Report) -> str:
    titles = [
        f"{title}, {table.UNITS[title]}" if title in table.UNITS else title
        for title in table.COLUMNS
    ]
    ruler = ["---" if title in TEXT_COLUMNS else "---:" for title in table.COLUMNS]
    lines = [_line([escape(title) for title in titles]), _line(ruler)]
    for row in table.rows(report):
        lines.append(_line([_cell(cell) for cell in row.cells.values()]))
    legend = (
        f"{MB_STATEMENT}. Changes and × are against the float model of the same runtime; "
        "parity is against the model named below."
    )
    return "\n".join(lines) + f"\n\n{legend}"


def _cell(cell: table.Cell) -> str:
    text = escape(cell.text) + (f" ({escape(cell.note)})" if cell.note else "")
    return f"⚠️ **{text}**" if cell.alarm else text


def _recovery(report: Report) -> list[str]:
    content = recovery_text.table(report)
    if content is None:
        return []
    return [
        f"## {recovery_text.TITLE}",
        _bullets(recovery_text.sentences(report)),
        _table(content),
        escape(recovery_text.explanation(report)),
        _bullets(recovery_text.remarks(report)),
    ]


def _speed(report: Report) -> list[str]:
    found = speed_text.sentences(report)
    return [f"## {speed_text.TITLE}", _bullets(found)] if found else []


def _routes(report: Report) -> list[str]:
    routes = facts.routes_table(report)
    return ["## Other routes to the integers", _table(routes)] if routes else []


def _training(report: Report) -> list[str]:
    training = facts.training_table(report)
    return ["## Training", _table(training)] if training else []


def _notes(report: Report) -> list[str]:
    return ["## Notes", _bullets(report.notes)] if report.notes else []


def _repeat(report: Report) -> str:
    recipe = facts.recipe_yaml(report)
    longest = max((len(run) for run in re.findall(r"`+", recipe)), default=0)
    fence = "`" * max(3, longest + 1)
    return (
        f"Save this recipe as `{report.name}.yaml` and run it with the versions above:\n\n"
        f"```sh\n{facts.repeat_command(report)}\n```\n\n{fence}yaml\n{recipe}{fence}"
    )


def _table(content: facts.FactTable) -> str:
    header, *body = (
        _line([escape(cell) for cell in row]) for row in (content.header, *content.rows)
    )
    return "\n".join([header, _line(["---"] * len(content.header)), *body])


def _bullets(lines: list[str]) -> str:
    return "\n".join(f"- {escape(line)}" for line in lines)


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"
