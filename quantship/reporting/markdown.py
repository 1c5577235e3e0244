"""The report as Markdown, for a pull request or a model's repository."""

from __future__ import annotations

import re
from collections.abc import Sequence

from quantship.reporting import (
    evidence_text,
    facts,
    gate_words,
    quantization_text,
    ranking_text,
    recovery_text,
    search_text,
    speed_text,
    table,
)
from quantship.reporting.comparison import headlines, warnings
from quantship.reporting.formatting import MB_STATEMENT, duration
from quantship.reporting.ranking import contender
from quantship.reporting.ranking_schema import Front, Ranking
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
        bullets(table.footnotes(report)),
        *_gates(report),
        *_tasks(report),
        *_ranking(report),
        *_quantization(report),
        *_searches(report),
        *_recovery(report),
        *_speed(report),
        *_routes(report),
        "## Data",
        *(fact_table(item) for item in facts.data_tables(report)),
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


def _ranking(report: Report) -> list[str]:
    if report.ranking is None:
        return []
    found = {row.name: contender(row).algorithm for row in report.models}
    return ranking(report.ranking, report.fronts, found)


def ranking(found: Ranking, fronts: Sequence[Front], algorithms: dict[str, str]) -> list[str]:
    """A ranking, its fronts and what there is to say of them, part by part.

    Args:
        found: The ranking.
        fronts: Pareto fronts of the same models.
        algorithms: What to call the algorithm of a model, by the model's name.
    """
    seeds = ranking_text.seeds_table(found)
    return [
        f"## {ranking_text.TITLE}",
        fact_table(ranking_text.table(found)),
        escape(ranking_text.explanation(found)),
        bullets(ranking_text.remarks(found)),
        *((f"### {ranking_text.SEEDS_TITLE}", fact_table(seeds)) if seeds else ()),
        *(escape(ranking_text.SEEDS_EXPLANATION) for _ in found.seeds[:1]),
        *(
            part
            for front in fronts
            for part in (
                f"### {ranking_text.FRONT_TITLES[front.cost]}",
                fact_table(ranking_text.front_table(front, algorithms)),
            )
        ),
    ]


def _quantization(report: Report) -> list[str]:
    content = quantization_text.table(report)
    if content is None:
        return []
    return [
        f"## {quantization_text.TITLE}",
        fact_table(content),
        escape(quantization_text.EXPLANATION),
        bullets(quantization_text.remarks(report)),
    ]


def _gates(report: Report) -> list[str]:
    content = gate_words.table(report.gates)
    if content is None:
        return []
    failed = gate_words.failures(report.gates)
    return [f"## {gate_words.TITLE}", fact_table(content), bullets(failed)]


def _tasks(report: Report) -> list[str]:
    evidence = report.evidence
    if evidence is None:
        return []
    found = [f"## {evidence_text.TITLE}"]
    for task in evidence.tasks:
        found += [f"### {escape(evidence_text.about(task))}"]
        if task.metrics:
            found.append(fact_table(evidence_text.task_table(report, task)))
        found.append(bullets(task.notes))
    found.append(escape(evidence_text.explanation(evidence)))
    for title, content in (
        (evidence_text.CONTRASTS_TITLE, evidence_text.contrast_table(evidence)),
        (evidence_text.EXPORTS_TITLE, evidence_text.exports_table(evidence)),
        (evidence_text.REGRESSIONS_TITLE, evidence_text.regressions_table(evidence)),
    ):
        if content is not None:
            found += [f"### {title}", fact_table(content)]
    return found


def _searches(report: Report) -> list[str]:
    content = search_text.table(report)
    if content is None:
        return []
    return [
        f"## {search_text.TITLE}",
        fact_table(content),
        escape(search_text.EXPLANATION),
        bullets(search_text.remarks(report)),
    ]


def _recovery(report: Report) -> list[str]:
    content = recovery_text.table(report)
    if content is None:
        return []
    return [
        f"## {recovery_text.TITLE}",
        bullets(recovery_text.sentences(report)),
        fact_table(content),
        escape(recovery_text.explanation(report)),
        bullets(recovery_text.remarks(report)),
    ]


def _speed(report: Report) -> list[str]:
    found = speed_text.sentences(report)
    return [f"## {speed_text.TITLE}", bullets(found)] if found else []


def _routes(report: Report) -> list[str]:
    routes = facts.routes_table(report)
    return ["## Other routes to the integers", fact_table(routes)] if routes else []


def _training(report: Report) -> list[str]:
    training = facts.training_table(report)
    return ["## Training", fact_table(training)] if training else []


def _notes(report: Report) -> list[str]:
    return ["## Notes", bullets(report.notes)] if report.notes else []


def _repeat(report: Report) -> str:
    recipe = facts.recipe_yaml(report)
    longest = max((len(run) for run in re.findall(r"`+", recipe)), default=0)
    fence = "`" * max(3, longest + 1)
    return (
        f"Save this recipe as `{report.name}.yaml` and run it with the versions above:\n\n"
        f"```sh\n{facts.repeat_command(report)}\n```\n\n{fence}yaml\n{recipe}{fence}"
    )


def fact_table(content: facts.FactTable) -> str:
    """A small table."""
    header, *body = (
        _line([escape(cell) for cell in row]) for row in (content.header, *content.rows)
    )
    return "\n".join([header, _line(["---"] * len(content.header)), *body])


def bullets(lines: list[str]) -> str:
    """A list."""
    return "\n".join(f"- {escape(line)}" for line in lines)


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"
