"""The plots of perplexity against what a model costs, and the Pareto front in them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from quantship.reporting import canvas, formatting, label_column, labels, svg
from quantship.reporting.canvas import Drawing
from quantship.reporting.comparison import SIDES, runtime, side
from quantship.reporting.fronts import COSTS, Cost, cost_of
from quantship.reporting.ranking_schema import Front
from quantship.reporting.schema import ModelRow

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LOG_RANGE = 4.0
FEW = 14
"""Models that are named at their points; the names of more stand in a column."""
HEIGHTS_PT = (360.0, 440.0, 540.0, 660.0)
"""Heights that are tried until every name has a place of its own."""
TITLES: dict[Cost, str] = {
    "size_bytes": "Accuracy against size",
    "decode_tokens_per_s": "Accuracy against decode speed",
}
SHAPES = "Circles ran on torch, open squares on onnxruntime, open diamonds on openvino"


@dataclass(frozen=True)
class Point:
    """One model in a plot.

    Args:
        row: What was measured of it.
        name: What is written beside it, and what a front calls it.
        group: What its colour stands for.
        colour: One of ``svg.PALETTE``'s light colours.
        label: What is written beside it, where that is not its name.
    """

    row: ModelRow
    name: str
    group: str
    colour: str
    label: str

    @property
    def perplexity(self) -> float:
        """Perplexity; points are of evaluated models only."""
        assert self.row.metrics is not None
        return self.row.metrics.perplexity


def point(row: ModelRow, name: str, group: str, colour: str, label: str = "") -> Point:
    """The point of a model that was evaluated."""
    return Point(row, name, group, colour, label or name)


def draw(
    points: Sequence[Point],
    fronts: Sequence[Front],
    joined: Sequence[Sequence[str]] = (),
    *,
    prefix: str = "",
    left_out: str = "",
) -> list[Drawing]:
    """A plot for each cost that was measured.

    Args:
        points: Models.
        fronts: Their Pareto fronts.
        joined: Names of models that a faint line joins where their size is plotted.
        prefix: Goes before the ids of the drawings, so that several share a page.
        left_out: A sentence on models that are not among the points; may be empty.
    """
    drawings = []
    for cost in COSTS:
        costs = {
            one.name: _unit(cost, value) for one in points if (value := cost_of(one.row, cost))
        }
        those = [one for one in points if one.name in costs]
        front = next((front for front in fronts if front.cost == cost), None)
        if those and (cost == "size_bytes" or len(those) > 1):
            lines = joined if cost == "size_bytes" else ()
            drawings.append(_draw(cost, those, costs, front, lines, prefix, left_out))
    return drawings


def _unit(cost: Cost, value: float) -> float:
    return value / formatting.MB if cost == "size_bytes" else value


def _draw(
    cost: Cost,
    points: Sequence[Point],
    costs: Mapping[str, float],
    front: Front | None,
    joined: Sequence[Sequence[str]],
    prefix: str,
    left_out: str,
) -> Drawing:
    on_front = [one.name for one in front.points if one.name in costs] if front else []
    # Those on the front have the first choice of a place for their names.
    ordered = sorted(points, key=lambda one: (one.name not in on_front, one.perplexity))
    marks = [
        labels.Label(costs[one.name], one.perplexity, one.label, one.colour) for one in ordered
    ]
    for height in HEIGHTS_PT if len(marks) <= FEW else (label_column.height_pt(len(marks)),):
        figure, axes = canvas.axes(height_pt=height)
        _fill(axes, cost, points, costs, on_front, joined)
        figure.draw_without_rendering()  # the layout must be final before labels are placed
        figure.set_layout_engine("none")
        if len(marks) > FEW:
            label_column.place(axes, marks)
        elif labels.place(axes, marks, drop=height == HEIGHTS_PT[-1]):
            break
    spoken = "; ".join(_spoken(cost, one, one.name in on_front) for one in points)
    name = prefix + ("accuracy" if cost == "size_bytes" else "accuracy-speed")
    return Drawing(
        TITLES[cost],
        f"{_caption(cost, len(on_front) > 1, bool(joined))} {left_out}".rstrip(),
        svg.render(figure, name, TITLES[cost], spoken),
    )


def _fill(
    axes: Axes,
    cost: Cost,
    points: Sequence[Point],
    costs: Mapping[str, float],
    on_front: Sequence[str],
    joined: Sequence[Sequence[str]],
) -> None:
    perplexity = {one.name: one.perplexity for one in points}
    spread = max(perplexity.values()) / min(perplexity.values())
    if spread > LOG_RANGE:
        _log_axis(axes, decades=math.log10(spread))
    for names in joined:
        xs, ys = [costs[name] for name in names], [perplexity[name] for name in names]
        axes.plot(xs, ys, color=svg.FAINT, lw=1.2, zorder=1)
    if len(on_front) > 1:
        xs, ys = [costs[name] for name in on_front], [perplexity[name] for name in on_front]
        axes.plot(xs, ys, color=svg.INK, lw=1.3, drawstyle="steps-post", zorder=1.5, alpha=0.75)
    for one in points:
        style = _marker(one.row, one.colour)
        zorder = 2 if side(one.row) == "torch" else 3
        axes.plot(costs[one.name], one.perplexity, **style, zorder=zorder, clip_on=False)
    axes.set_xlim(left=0, right=1.12 * max(costs[one.name] for one in points))
    axes.margins(y=0.16)
    axes.set_xlabel("size on disk, MB" if cost == "size_bytes" else "tokens decoded a second")
    axes.set_ylabel("perplexity")
    _legend(axes, points, front=len(on_front) > 1)


def _spoken(cost: Cost, one: Point, on_front: bool) -> str:
    price = (
        formatting.size(one.row.size_bytes)
        if cost == "size_bytes"
        else f"{formatting.speed(cost_of(one.row, cost))} tokens a second"
    )
    text = f"{one.name} on {runtime(one.row)}: {price}, "
    text += f"perplexity {formatting.number(one.perplexity)}"
    return f"{text}, on the front" if on_front else text


def _caption(cost: Cost, has_front: bool, has_lines: bool) -> str:
    corner = "Lower left" if cost == "size_bytes" else "Lower right"
    text = f"{corner} is better. "
    if cost == "size_bytes":
        text += f"{formatting.MB_STATEMENT}. "
    text += SHAPES
    text += "; a faint line joins models of one scheme on one runtime. " if has_lines else ". "
    if has_front:
        dear = "smaller" if cost == "size_bytes" else "faster"
        text += (
            "The stepped line is the Pareto front: of the models on it, none is beaten by another "
            f"that is {dear} and has less perplexity."
        )
    return text


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


def _legend(axes: Axes, points: Sequence[Point], *, front: bool) -> None:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    entries: dict[str, Any] = {one.group: Patch(color=one.colour, lw=0) for one in points}
    for library in dict.fromkeys(SIDES.values()):
        those = [one.row for one in points if side(one.row) == library]
        if those:
            names = ", ".join(dict.fromkeys(runtime(row) for row in those))
            entries[names] = Line2D([], [], **_marker(those[0], svg.INK))
    if front:
        entries["Pareto front"] = Line2D([], [], color=svg.INK, lw=1.3, alpha=0.75)
    canvas.legend(axes, list(entries.values()), list(entries))
