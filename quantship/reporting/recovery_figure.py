"""The plot of what QAT recovered: a share and its interval for each model and float reference."""

from __future__ import annotations

from typing import TYPE_CHECKING

from quantship.reporting import canvas, figures, formatting, recovery_text, svg
from quantship.reporting.canvas import Drawing
from quantship.reporting.recovery_schema import Estimate, Recovery
from quantship.reporting.recovery_text import Held
from quantship.reporting.schema import Report

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FURTHEST = (-1.0, 2.0)
"""Shares that are still drawn; what lies beyond gets an arrow, so that it flattens nothing."""
ROOM = 0.12


def draw(report: Report) -> Drawing | None:
    """One line a QAT model and float reference that it has a share against."""
    lines = [
        (entry, held, held.recovered.share)
        for entry in report.recovery
        for held in recovery_text.shares(entry)
        if held.recovered.share is not None
    ]
    if not lines:
        return None
    figure, axes = canvas.axes(height_pt=84 + 40 * len(lines))
    for place, (entry, held, share) in enumerate(lines):
        _line(axes, place, share, _colour(report, entry), hollow=_is_control(entry, held))
    for end in (0.0, 1.0):
        axes.axvline(end, color=svg.INK, lw=1, ls=(0, (3, 3)), zorder=1)
    _name_ends(axes)
    names = [
        f"{canvas.fitting(entry.qat.name)}\n{canvas.fitting(_against(entry, held))}"
        for entry, held, _ in lines
    ]
    axes.set_yticks(range(len(lines)), names, parse_math=False)
    axes.set_ylim(len(lines) - 0.4, -0.6)
    axes.grid(visible=False, axis="y")
    axes.tick_params(axis="y", length=0)
    low = min(0.0, *(share.low for *_, share in lines))
    high = max(1.0, *(share.high for *_, share in lines))
    axes.set_xlim(max(low, FURTHEST[0]) - ROOM, min(high, FURTHEST[1]) + ROOM)
    axes.xaxis.set_major_formatter(lambda value, _: formatting.share(value))
    axes.set_xlabel("share of PTQ's loss that QAT recovered")
    spoken = "; ".join(recovery_text.sentences(report))
    caption = (
        "A dot is the share, the line its interval; an arrow leads off the scale. Hollow dots are "
        "against a control, the float model trained on without quantization."
    )
    title = recovery_text.TITLE
    return Drawing(title, caption, svg.render(figure, "recovery", title, spoken))


def _line(axes: Axes, place: int, share: Estimate, colour: str, *, hollow: bool) -> None:
    low, high = (min(max(end, FURTHEST[0]), FURTHEST[1]) for end in (share.low, share.high))
    axes.plot([low, high], [place, place], color=colour, lw=2.4, solid_capstyle="round", zorder=2)
    face = svg.SURFACE if hollow else colour
    if FURTHEST[0] <= share.value <= FURTHEST[1]:
        axes.plot(
            share.value, place, marker="o", ms=8, mfc=face, color=colour, mew=2, ls="", zorder=3
        )
    for marker, end, shown in (("<", share.low, low), (">", share.high, high)):
        if end != shown:
            axes.plot(shown, place, marker=marker, ms=8, mfc=face, color=colour, ls="", zorder=3)
    axes.annotate(
        f"{formatting.share(share.value)} ({formatting.share_range(share.low, share.high)})",
        ((low + high) / 2, place),
        xytext=(0, 8),
        textcoords="offset points",
        ha="center",
        va="bottom",
        fontsize=9.5,
        color=svg.INK,
        bbox={"facecolor": svg.SURFACE, "edgecolor": "none", "pad": 1.2},
        zorder=4,
    )


def _name_ends(axes: Axes) -> None:
    for end, name in ((0.0, "PTQ"), (1.0, "float")):
        axes.annotate(
            name,
            (end, 1.0),
            xycoords=("data", "axes fraction"),
            xytext=(0, 3),
            textcoords="offset points",
            ha="center",
            fontsize=9.5,
            color=svg.INK,
        )


def _against(entry: Recovery, held: Held) -> str:
    """What sets this line apart from the others of the same QAT model."""
    if _is_control(entry, held) or entry.nearest is None:
        return f"against {held.recovered.reference.name}"
    return f"over {held.ptq.name}"


def _is_control(entry: Recovery, held: Held) -> bool:
    return entry.control is not None and held.recovered is entry.control.recovered


def _colour(report: Report, entry: Recovery) -> str:
    group = next(row.group for row in report.models if row.name == entry.qat.name)
    return svg.PALETTE[figures.colours(report)[group]][0]
