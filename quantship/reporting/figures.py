"""The report's plots as inline SVG: accuracy against size, speed, loss curves."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from quantship.reporting import canvas, formatting, labels, svg
from quantship.reporting.canvas import Drawing
from quantship.reporting.comparison import SIDES, float_reference, runtime, side, speed_ratio
from quantship.reporting.schema import ModelRow, Report

if TYPE_CHECKING:
    from matplotlib.axes import Axes

DASHES = ("-", "--", ":", "-.")
FEW_POINTS = 12
LOG_RANGE = 4.0
PALE = 0.4


def draw(report: Report) -> list[Drawing]:
    """All figures that the report has numbers for, in reading order."""
    makers = (accuracy_against_size, speed_by_runtime, loss_curves)
    return [drawing for make in makers if (drawing := make(report)) is not None]


def colours(report: Report) -> dict[str, int]:
    """Place in the palette of every group and training stage, by first appearance."""
    names = [*(row.group for row in report.models), *(curve.stage for curve in report.training)]
    return {name: place % len(svg.PALETTE) for place, name in enumerate(dict.fromkeys(names))}


def accuracy_against_size(report: Report) -> Drawing | None:
    """Perplexity of the quantized models and their float references against size on disk."""
    rows = _comparable(report)
    if not rows:
        return None
    points = {id(row): (row.size_bytes / formatting.MB, _perplexity(row)) for row in rows}
    perplexities = [perplexity for _, perplexity in points.values()]
    figure, axes = canvas.axes(height_pt=360)
    spread = max(perplexities) / min(perplexities)
    if spread > LOG_RANGE:
        _log_axis(axes, decades=math.log10(spread))
    for branch in _branches(rows):
        xs, ys = zip(*(points[id(row)] for row in branch), strict=True)
        axes.plot(xs, ys, color=svg.FAINT, lw=1.2, zorder=1)
    for row in rows:
        style = _marker(row, _colour(report, row.group))
        axes.plot(*points[id(row)], **style, zorder=2 if side(row) == "torch" else 3)
    axes.set_xlim(left=0, right=1.12 * max(x for x, _ in points.values()))
    axes.margins(y=0.16)
    axes.set_xlabel("size on disk, MB")
    axes.set_ylabel("perplexity")
    _legend(report, axes, rows)
    figure.draw_without_rendering()  # the layout must be final before labels are placed
    figure.set_layout_engine("none")
    labels.place(
        axes,
        [labels.Label(*points[id(row)], row.name, _colour(report, row.group)) for row in rows],
    )
    title = "Accuracy against size"
    spoken = "; ".join(
        f"{row.name} on {runtime(row)}: {formatting.size(row.size_bytes)}, "
        f"perplexity {formatting.number(_perplexity(row))}"
        for row in rows
    )
    caption = (
        f"Lower left is better. {formatting.MB_STATEMENT}. Circles ran on torch, open squares on "
        "onnxruntime, open diamonds on openvino; a line joins models of one scheme on one runtime. "
        "Float models that nothing is compared with are left out."
    )
    return Drawing(title, caption, svg.render(figure, "accuracy", title, spoken))


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
    names = [f"{row.name}\n{runtime(row)}" for row, _, _ in bars]
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


def _perplexity(row: ModelRow) -> float:
    assert row.metrics is not None
    return row.metrics.perplexity


def _colour(report: Report, name: str) -> str:
    return svg.PALETTE[colours(report)[name]][0]


def _log_axis(axes: Axes, decades: float) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if decades < 3 else (1,)))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.12g}"))


def _marker(row: ModelRow, colour: str) -> dict[str, Any]:
    """Solid circle on torch, larger open shapes elsewhere: all show where they coincide."""
    if side(row) == "torch":
        return {"ls": "", "color": colour, "marker": "o", "ms": 7}
    shape = {"marker": "s", "ms": 11} if side(row) == "onnxruntime" else {"marker": "D", "ms": 14}
    return {"ls": "", "color": colour, "mfc": "none", "mew": 1.8, **shape}


def _legend(report: Report, axes: Axes, rows: Sequence[ModelRow]) -> None:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    entries: dict[str, Any] = {
        row.group: Patch(color=_colour(report, row.group), lw=0) for row in rows
    }
    for library in dict.fromkeys(SIDES.values()):
        those = [row for row in rows if side(row) == library]
        if those:
            names = ", ".join(dict.fromkeys(runtime(row) for row in those))
            entries[names] = Line2D([], [], **_marker(those[0], svg.INK))
    canvas.legend(axes, list(entries.values()), list(entries))


def _bar_legend(axes: Axes) -> None:
    from matplotlib.patches import Patch

    patches = [Patch(color=svg.INK, alpha=PALE, lw=0), Patch(color=svg.INK, lw=0)]
    canvas.legend(axes, patches, ["prefill", "decode"])
