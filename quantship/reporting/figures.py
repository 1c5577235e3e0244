"""The report's plots as inline SVG: accuracy against size, speed, loss curves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from quantship.reporting import canvas, formatting, front_figure, svg
from quantship.reporting.canvas import Drawing
from quantship.reporting.comparison import SIDES, float_reference, runtime, side, speed_ratio
from quantship.reporting.schema import ModelRow, Report

if TYPE_CHECKING:
    from matplotlib.axes import Axes

DASHES = ("-", "--", ":", "-.")
FEW_POINTS = 12
PALE = 0.4


def draw(report: Report) -> list[Drawing]:
    """All figures that the report has numbers for, in reading order."""
    makers = (speed_by_runtime, loss_curves)
    others = [drawing for make in makers if (drawing := make(report)) is not None]
    return [*fronts(report), *others]


def fronts(report: Report) -> list[Drawing]:
    """Perplexity against size and decode speed, of quantized models and their float references."""
    rows = _comparable(report)
    joined = _branches(rows) if len(rows) <= FEW_POINTS else []
    return front_figure.draw(
        [front_figure.point(row, row.name, row.group, _colour(report, row.group)) for row in rows],
        report.fronts,
        [[row.name for row in branch] for branch in joined],
        left_out="Float models that nothing is compared with are left out.",
    )


def colours(report: Report) -> dict[str, int]:
    """Place in the palette of every group and training stage, by first appearance."""
    names = [*(row.group for row in report.models), *(curve.stage for curve in report.training)]
    return {name: place % len(svg.PALETTE) for place, name in enumerate(dict.fromkeys(names))}


def speed_by_runtime(report: Report) -> Drawing | None:
    """Prefill and decode speed of quantized models by that of the float model beside them."""
    bars = [
        (row, prefill, decode)
        for library in dict.fromkeys(SIDES.values())
        for row in report.models
        if side(row) == library
        and (prefill := speed_ratio(report, row, "prefill_tokens_per_s")) is not None
        and (decode := speed_ratio(report, row, "decode_tokens_per_s")) is not None
    ]
    if not bars:
        return None
    figure, axes = canvas.axes(height_pt=96 + 40 * len(bars))
    for place, (row, prefill, decode) in enumerate(bars):
        colour = _colour(report, row.group)
        for offset, value, alpha in ((-0.18, prefill, PALE), (0.18, decode, 1.0)):
            axes.barh(place + offset, value, height=0.34, color=colour, alpha=alpha, lw=0)
            axes.annotate(
                formatting.ratio(value),
                (value, place + offset),
                xytext=(4, 0),
                textcoords="offset points",
                va="center",
                fontsize=9.5,
                bbox={"facecolor": svg.SURFACE, "edgecolor": "none", "pad": 1.2},
                zorder=4,
            )
    axes.axvline(1.0, color=svg.INK, lw=1, ls=(0, (3, 3)))
    names = [f"{canvas.fitting(row.name)}\n{runtime(row)}" for row, _, _ in bars]
    axes.set_yticks(range(len(bars)), names, parse_math=False)
    axes.invert_yaxis()
    axes.grid(visible=False, axis="y")
    axes.tick_params(axis="y", length=0)
    axes.set_xlim(0, 1.12 * max(1.0, *(max(pair) for _, *pair in bars)))
    axes.set_xlabel("speed relative to the float model on the same runtime")
    _bar_legend(axes)
    title = "Speed on each runtime"
    spoken = "; ".join(
        f"{row.name} on {runtime(row)}: prefill {formatting.ratio(prefill)}, "
        f"decode {formatting.ratio(decode)}"
        for row, prefill, decode in bars
    )
    caption = (
        "Pale: prefill, the prompt in one go. Solid: decode, one token at a time. The dashed "
        "line is the float model on the same runtime."
    )
    return Drawing(title, caption, svg.render(figure, "speed", title, spoken))


def loss_curves(report: Report) -> Drawing | None:
    """Training loss against optimizer steps, one line a training."""
    curves = [curve for curve in report.training if curve.points]
    if not curves:
        return None
    figure, axes = canvas.axes(height_pt=300)
    seen: dict[str, int] = {}
    for curve in curves:
        turn = seen.setdefault(curve.stage, 0)
        seen[curve.stage] += 1
        axes.plot(
            [point.step for point in curve.points],
            [point.loss for point in curve.points],
            color=_colour(report, curve.stage),
            ls=DASHES[turn % len(DASHES)],
            marker="o" if len(curve.points) < FEW_POINTS else "",
            ms=4,
            lw=1.8,
        )
    axes.set_xlim(left=0)
    axes.locator_params(axis="x", integer=True)
    axes.set_xlabel("optimizer step")
    axes.set_ylabel("training loss, nats a token")
    canvas.legend(axes, axes.get_lines(), [curve.step for curve in curves])
    title = "Training loss"
    spoken = "; ".join(
        f"{curve.step}: from {formatting.number(curve.points[0].loss)} to "
        f"{formatting.number(curve.points[-1].loss)} in {curve.points[-1].step} steps"
        for curve in curves
    )
    caption = "Mean loss since the point before, as logged during training."
    return Drawing(title, caption, svg.render(figure, "loss", title, spoken))


def _comparable(report: Report) -> list[ModelRow]:
    """Quantized rows and their float references; all rows where none is quantized."""
    references = {id(float_reference(report, row)) for row in report.models}
    measured = [row for row in report.models if row.metrics is not None]
    compared = [row for row in measured if row.scheme is not None or id(row) in references]
    quantized = any(row.scheme is not None for row in compared)
    return compared if quantized else measured


def _branches(rows: Sequence[ModelRow]) -> list[list[ModelRow]]:
    """Rows of one scheme on one runtime, as PTQ and QAT."""
    branches: dict[tuple[str, str], list[ModelRow]] = {}
    for row in rows:
        if row.scheme is not None:
            branches.setdefault((row.scheme, side(row)), []).append(row)
    return list(branches.values())


def _colour(report: Report, name: str) -> str:
    return svg.PALETTE[colours(report)[name]][0]


def _bar_legend(axes: Axes) -> None:
    from matplotlib.patches import Patch

    patches = [Patch(color=svg.INK, alpha=PALE, lw=0), Patch(color=svg.INK, lw=0)]
    canvas.legend(axes, patches, ["prefill", "decode"])
