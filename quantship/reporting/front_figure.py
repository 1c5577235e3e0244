"""The plots of accuracy against what a model costs, and the Pareto front in them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
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
CORNERS = {("size_bytes", False): "Lower left", ("size_bytes", True): "Upper left"}
CORNERS |= {
    ("decode_tokens_per_s", False): "Lower right",
    ("decode_tokens_per_s", True): "Upper right",
}
"""Where the best are, by cost and whether more of the measure is better."""
COST_NAMES: dict[Cost, str] = {"size_bytes": "size", "decode_tokens_per_s": "decode speed"}
SHAPES = "Circles ran on torch, open squares on onnxruntime, open diamonds on openvino"


@dataclass(frozen=True)
class Measure:
    """What stands at the upright axis.

    Args:
        name: Its name.
        axis: The same with its unit.
        text: A value in words.
        higher_is_better: Whether more of it is better.
        scale: What values are multiplied by where they are drawn.
        is_ratio: Whether values far apart lie on a logarithmic axis.
    """

    name: str = "perplexity"
    axis: str = "perplexity"
    text: Callable[[float], str] = formatting.number
    higher_is_better: bool = False
    scale: float = 1.0
    is_ratio: bool = True

    @property
    def better(self) -> str:
        """Words for the better end of it."""
        return "more" if self.higher_is_better else "less"


PERPLEXITY = Measure()


@dataclass(frozen=True)
class Point:
    """One model in a plot.

    Args:
        row: What was measured of it.
        name: What is written beside it, and what a front calls it.
        group: What its colour stands for.
        colour: One of ``svg.PALETTE``'s light colours.
        label: What is written beside it, where that is not its name.
        value: Of the measure.
        interval: Both ends of the value's interval, where there is one.
    """

    row: ModelRow
    name: str
    group: str
    colour: str
    label: str
    value: float
    interval: tuple[float, float] | None = field(default=None)


def point(row: ModelRow, name: str, group: str, colour: str, label: str = "") -> Point:
    """The point of a model whose perplexity was measured."""
    assert row.metrics is not None
    return Point(row, name, group, colour, label or name, row.metrics.perplexity)


def draw(
    points: Sequence[Point],
    fronts: Sequence[Front],
    joined: Sequence[Sequence[str]] = (),
    *,
    prefix: str = "",
    left_out: str = "",
) -> list[Drawing]:
    """A plot of perplexity for each cost that was measured.

    Args:
        points: Models.
        fronts: Their Pareto fronts.
        joined: Names of models that a faint line joins where their size is plotted.
        prefix: Goes before the ids of the drawings, so that several share a page.
        left_out: A sentence on models that are not among the points; may be empty.
    """
    on_front = {front.cost: [one.name for one in front.points] for front in fronts}
    return draw_measure(points, on_front, joined, PERPLEXITY, prefix=prefix, left_out=left_out)


def draw_measure(
    points: Sequence[Point],
    on_front: Mapping[Cost, Sequence[str]],
    joined: Sequence[Sequence[str]],
    measure: Measure,
    *,
    prefix: str,
    left_out: str,
) -> list[Drawing]:
    """The same for any measure; the names on the front are given from the cheapest on."""
    drawings = []
    for cost in COSTS:
        costs = {
            one.name: _unit(cost, value) for one in points if (value := cost_of(one.row, cost))
        }
        those = [one for one in points if one.name in costs]
        front = [name for name in on_front.get(cost, ()) if name in costs]
        if those and (cost == "size_bytes" or len(those) > 1):
            lines = joined if cost == "size_bytes" else ()
            plot = _Plot(cost, measure, those, costs, front, lines)
            drawings.append(_draw(plot, prefix, left_out))
    return drawings


def _unit(cost: Cost, value: float) -> float:
    return value / formatting.MB if cost == "size_bytes" else value


@dataclass(frozen=True)
class _Plot:
    """What one plot shows."""

    cost: Cost
    measure: Measure
    points: Sequence[Point]
    costs: Mapping[str, float]
    on_front: Sequence[str]
    joined: Sequence[Sequence[str]]

    @property
    def title(self) -> str:
        if self.measure is PERPLEXITY:
            return TITLES[self.cost]
        return f"{self.measure.name} against {COST_NAMES[self.cost]}"

    def drawn(self, value: float) -> float:
        return value * self.measure.scale


def _draw(plot: _Plot, prefix: str, left_out: str) -> Drawing:
    sign = -1.0 if plot.measure.higher_is_better else 1.0
    # Those on the front have the first choice of a place for their names.
    ordered = sorted(plot.points, key=lambda one: (one.name not in plot.on_front, sign * one.value))
    marks = [
        labels.Label(
            plot.costs[one.name], plot.drawn(one.value), canvas.fitting(one.label), one.colour
        )
        for one in ordered
    ]
    for height in HEIGHTS_PT if len(marks) <= FEW else (label_column.height_pt(len(marks)),):
        figure, axes = canvas.axes(height_pt=height)
        _fill(axes, plot)
        figure.draw_without_rendering()  # the layout must be final before labels are placed
        figure.set_layout_engine("none")
        if len(marks) > FEW:
            label_column.place(axes, marks)
        elif labels.place(axes, marks, drop=height == HEIGHTS_PT[-1]):
            break
    spoken = "; ".join(_spoken(plot, one) for one in plot.points)
    name = prefix + ("accuracy" if plot.cost == "size_bytes" else "accuracy-speed")
    return Drawing(
        plot.title,
        f"{_caption(plot)} {left_out}".rstrip(),
        svg.render(figure, name, plot.title, spoken),
    )


def _fill(axes: Axes, plot: _Plot) -> None:
    costs = plot.costs
    values = {one.name: plot.drawn(one.value) for one in plot.points}
    least, most = min(values.values()), max(values.values())
    if plot.measure.is_ratio and least > 0 and most / least > LOG_RANGE:
        _log_axis(axes, decades=math.log10(most / least))
    for names in plot.joined:
        xs, ys = [costs[name] for name in names], [values[name] for name in names]
        axes.plot(xs, ys, color=svg.FAINT, lw=1.2, zorder=1)
    if len(plot.on_front) > 1:
        xs, ys = [costs[name] for name in plot.on_front], [values[name] for name in plot.on_front]
        axes.plot(xs, ys, color=svg.INK, lw=1.3, drawstyle="steps-post", zorder=1.5, alpha=0.75)
    for one in plot.points:
        style = _marker(one.row, one.colour)
        zorder = 2 if side(one.row) == "torch" else 3
        if one.interval is not None:
            ends = [plot.drawn(end) for end in one.interval]
            axes.plot([costs[one.name]] * 2, ends, color=one.colour, lw=1.4, alpha=0.45, zorder=1.2)
        axes.plot(costs[one.name], values[one.name], **style, zorder=zorder, clip_on=False)
    axes.set_xlim(left=0, right=1.12 * max(costs[one.name] for one in plot.points))
    axes.margins(y=0.16)
    sized = plot.cost == "size_bytes"
    axes.set_xlabel("size on disk, MB" if sized else "tokens decoded a second")
    axes.set_ylabel(canvas.fitting(plot.measure.axis), parse_math=False)
    _legend(axes, plot.points, front=len(plot.on_front) > 1)


def _spoken(plot: _Plot, one: Point) -> str:
    price = (
        formatting.size(one.row.size_bytes)
        if plot.cost == "size_bytes"
        else f"{formatting.speed(cost_of(one.row, plot.cost))} tokens a second"
    )
    text = f"{one.name} on {runtime(one.row)}: {price}, "
    text += f"{plot.measure.name} {plot.measure.text(one.value)}"
    return f"{text}, on the front" if one.name in plot.on_front else text


def _caption(plot: _Plot) -> str:
    text = f"{CORNERS[plot.cost, plot.measure.higher_is_better]} is better. "
    if plot.cost == "size_bytes":
        text += f"{formatting.MB_STATEMENT}. "
    if any(one.interval is not None for one in plot.points):
        text += "Upright lines are intervals. "
    text += SHAPES
    joins = bool(plot.joined)
    text += "; a faint line joins models of one scheme on one runtime. " if joins else ". "
    if len(plot.on_front) > 1:
        dear = "smaller" if plot.cost == "size_bytes" else "faster"
        text += (
            "The stepped line is the Pareto front: of the models on it, none is beaten by another "
            f"that is {dear} and has {plot.measure.better} {plot.measure.name}."
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
