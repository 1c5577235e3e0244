"""How the integers of each model were found, in words and as a table."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from quantship.reporting import formatting
from quantship.reporting.facts import FactTable
from quantship.reporting.ranking_schema import CalibrationUsed, Quantization
from quantship.reporting.schema import ModelRow, Report

TITLE = "How the integers were found"
EXPLANATION = (
    "Times are of the machine as it was, and memory is the most that the whole process held in "
    "the meantime, libraries included."
)
MOST_REMARKS = 8
"""Of one model; more drown what matters."""


def table(report: Report) -> FactTable | None:
    """One row a model that a quantize step made; None where there is none."""
    body = tuple(
        (
            row.name,
            made.words,
            row.scheme or formatting.DASH,
            _data(made.calibration),
            formatting.DASH if made.seconds is None else formatting.duration(made.seconds),
            formatting.megabytes(made.peak_rss_bytes),
        )
        for row, made in _quantized(report)
    )
    header = ("Model", "Algorithm", "Scheme", "Calibration data", "Time", "Peak memory, MB")
    return FactTable(header, body) if body else None


def remarks(report: Report) -> list[str]:
    """What the algorithms had to say, model after model: fallbacks first of all."""
    lines = []
    for row, made in _quantized(report):
        found = _alike(made.remarks)
        lines += [f"{row.name}: {remark.rstrip('.')}." for remark in found[:MOST_REMARKS]]
        if len(found) > MOST_REMARKS:
            more = len(found) - MOST_REMARKS
            lines.append(f"{row.name}: {more} more remarks; all of them are in report.json.")
        if made.blocks_resumed:
            lines.append(
                f"{row.name}: {made.blocks_resumed} blocks are those of an earlier run, which was "
                "interrupted; the time is without them."
            )
    return lines


def _alike(found: Sequence[str]) -> list[str]:
    """Remarks without repeating what several layers have in common: ``LAYERS: what it is``."""
    places: dict[str, list[str]] = {}
    for remark in found:
        place, colon, what = remark.partition(": ")
        places.setdefault(what if colon else remark, []).append(place if colon else "")
    return [
        ": ".join(filter(None, (where[0], what)))
        if len(where) == 1
        else f"{what} ({len(where)} times, first in {where[0]})"
        for what, where in places.items()
    ]


def _quantized(report: Report) -> Iterator[tuple[ModelRow, Quantization]]:
    for row in report.models:
        if row.quantization is not None and row.kind == "torchao":  # an export has the same
            yield row, row.quantization


def _data(used: CalibrationUsed | None) -> str:
    if used is None:
        return "none"
    text = f"{used.sequences:,} sequences"
    if used.tokens is not None:
        text += f", {used.tokens:,} tokens"
    return text if used.seed is None else f"{text}, seed {used.seed}"
