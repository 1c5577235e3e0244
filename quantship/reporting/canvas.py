"""What all plots of the report share: their size, their axes, the row of names above them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from quantship.reporting import formatting, svg

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH_PT = 680
LONGEST_NAME = 44
"""Characters of a name that there is room for beside a plot."""


@dataclass(frozen=True)
class Drawing:
    """A finished figure.

    Args:
        title: What it is, in a few words.
        caption: How to read it.
        svg: One ``<svg>`` element, to be put into a page as it stands.
    """

    title: str
    caption: str
    svg: str


def axes(height_pt: float) -> tuple[Figure, Axes]:
    """An empty plot in the page's style, 72 dots an inch."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH_PT / 72, height_pt / 72), dpi=72, layout="constrained")
    FigureCanvasAgg(figure)
    plot = figure.add_subplot()
    plot.set_axisbelow(True)
    plot.grid(color=svg.FAINT, lw=0.6, alpha=0.6)
    plot.tick_params(labelsize=9.5, color=svg.FAINT, labelcolor=svg.INK)
    plot.spines[["top", "right", "left"]].set_visible(False)
    plot.spines["bottom"].set_color(svg.FAINT)
    for axis in (plot.xaxis, plot.yaxis):
        axis.label.set(color=svg.INK, size=10)
    return figure, plot


def fitting(name: str) -> str:
    """A name as there is room for it; all of it is in the figure's description."""
    return formatting.shortened(name, LONGEST_NAME) or ""


def legend(plot: Axes, handles: Sequence[Any], names: Sequence[str]) -> None:
    """A row of names above the plot; a leading underscore would hide a name, so it is padded."""
    row = plot.legend(
        handles,
        [f" {name}" if name.startswith("_") else name for name in map(fitting, names)],
        loc="lower left",
        bbox_to_anchor=(0, 1.0),
        ncols=min(len(names), 6),
        frameon=False,
        fontsize=9.5,
        labelcolor=svg.INK,
        borderaxespad=0.2,
        handletextpad=0.5,
        columnspacing=1.4,
    )
    for text in row.get_texts():
        text.set_parse_math(False)
