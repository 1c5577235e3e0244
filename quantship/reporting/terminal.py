"""The table of models for a terminal of 100 columns or more."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from rich import box
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from quantship.reporting import (
    evidence_terminal,
    evidence_text,
    quantization_text,
    ranking_text,
    recovery_text,
    speed_text,
)
from quantship.reporting import table as model_table
from quantship.reporting.comparison import warnings
from quantship.reporting.formatting import DASH, MB_STATEMENT
from quantship.reporting.ranking_schema import Ranking
from quantship.reporting.schema import Report

LOUD = "bold white on red"
QUIET = "dim"
LEGIBLE = "not dim"
CAUTION = "not dim yellow"
FLOOR = "Of memory floor"

# Two columns of the report share one here, one above the other: fourteen side by side would
# need 150 characters.
STACKED = {
    "Size MB": ("Size", "Compression"),
    "Perplexity": ("Perplexity",),
    "Token acc. %": ("Token accuracy",),
    "Prefill tok/s": ("Prefill",),
    "Decode tok/s": ("Decode", FLOOR),
    "Peak MB": ("Peak memory",),
    "Codes equal": ("Codes equal",),
    "Top-1 %": ("Top-1",),
    "Max|Δ| KL": ("Max |Δlogit|", "KL"),
}
NO_ROOM = ("Ahead of the next",)
"""Columns of a ranking that a terminal is too narrow for."""


def parts(report: Report) -> Iterator[RenderableType]:
    """What a run shows at its end: models, their ranking, tasks and gates."""
    yield table(report)
    if report.ranking is not None:
        yield ranking(report.ranking, f"{report.name}: ranking")
    for found in (evidence_terminal.tasks(report), evidence_terminal.gates(report)):
        if found is not None:
            yield found


def table(report: Report) -> Table:
    """The models as a table with every column of the report, two lines a model."""
    result = Table(
        title=Text(f"{report.name}: models"),
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        pad_edge=False,
        caption=_caption(report),
        caption_justify="left",
    )
    result.add_column(Text("Model\nruntime · scheme"), overflow="fold", min_width=16)
    for title in STACKED:
        result.add_column(Text(title.replace(" ", "\n", 1)), justify="right", no_wrap=True)
    rows = model_table.rows(report)
    for place, row in enumerate(rows):
        name = Text(row.cells["Model"].text).append(f"\n{row.origin}", style=QUIET)
        values = (_stack([_cell(row, key) for key in keys]) for keys in STACKED.values())
        last_of_group = place + 1 == len(rows) or rows[place + 1].group != row.group
        result.add_row(name, *values, end_section=last_of_group)
    return result


def ranking(found: Ranking, title: str) -> Table:
    """The models in their order, with what there is to say of it below."""
    result = Table(
        title=Text(title),
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        pad_edge=False,
        caption=_ranking_caption(found),
        caption_justify="left",
    )
    result.add_column("", justify="right", no_wrap=True)
    result.add_column(Text("Model\nalgorithm · scheme"), overflow="fold", min_width=16)
    shown = [place for place, name in enumerate(ranking_text.NUMBERS) if name not in NO_ROOM]
    for place in shown:
        title_here = ranking_text.NUMBERS[place].replace(" ", "\n", 1)
        result.add_column(Text(title_here), justify="right", no_wrap=True)
    for row in ranking_text.stacked(found):
        name = Text(row.name).append(f"\n{row.origin}" if row.origin else "", style=QUIET)
        result.add_row(row.place, name, *(_two_lines(*row.cells[place]) for place in shown))
    return result


def _two_lines(text: str, below: str) -> Text:
    return Text(text).append(f"\n{below}" if below else "", style=QUIET)


def _ranking_caption(found: Ranking) -> Text:
    text = Text(ranking_text.explanation(found), style=QUIET)
    for line in ranking_text.remarks(found):
        text.append(f"\n{line}", style=LEGIBLE)
    for seeds in found.seeds:
        text.append(f"\n{ranking_text.of_seeds(seeds)}", style=LEGIBLE)
    return text


def _cell(row: model_table.Row, key: str) -> model_table.Cell:
    cell = row.cells[key]
    # Under the decoded tokens a second, a bare number would be no share.
    return replace(cell, text=f"{cell.text} %") if key == FLOOR and cell.text != DASH else cell


def _stack(cells: list[model_table.Cell]) -> Text:
    first, *others = cells
    text = Text(first.text, style=LOUD if first.alarm else "")
    below = [first.note, *(cell.text for cell in others)]
    for line in below:
        if line:
            text.append(f"\n{line}", style=LOUD if first.alarm else QUIET)
    return text


def _caption(report: Report) -> Text:
    text = Text(
        f"{MB_STATEMENT}. Changes and × are against the float model of the same runtime; "
        "% under Decode: of the speed at which memory can be read.",
        style=QUIET,
    )
    for sentence in recovery_text.sentences(report):
        text.append(f"\n{sentence}", style=LEGIBLE)
    for line in quantization_text.remarks(report):
        text.append(f"\n{line}", style=CAUTION)
    for line in speed_text.of_this_machine(report):
        text.append(f"\n{line}", style=CAUTION)
    for line in evidence_text.warnings(report):
        text.append(f"\n{line}", style=CAUTION)
    for warning in warnings(report):
        text.append(f"\nWARNING: {warning}", style=LOUD)
    return text
