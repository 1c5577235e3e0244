"""Names of many points: one column beside them in the order of their height, each with a line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from quantship.reporting import labels
from quantship.reporting.labels import Label

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    Array = NDArray[np.float64]

LINE_PT = 13.0
"""From one name to the next."""
LEAD_PT = 60.0
"""Room for the lines from the points to the column."""
MOST_BESIDE = 0.3
"""Share of the points that may lie beyond the column and are named where they are."""


def height_pt(num_points: int) -> float:
    """Height of a figure whose column has room for so many names."""
    return max(360.0, 110 + LINE_PT * num_points)


def place(axes: Axes, marks: Sequence[Label]) -> None:
    """Write the names of all points; the figure's layout must be final, at 72 dots an inch.

    The column stands in the first empty strip of the plot that is wide enough and has most points
    to its left, else to the right of the plot, which is narrowed for it. Names to the right of the
    strip are written at their points.
    """
    line = {"lw": 0.7, "shrinkA": 2, "shrinkB": 4, "relpos": (0, 0.5)}
    notes = [labels.annotate(axes, mark, **line) for mark in marks]
    width = max(note.get_window_extent().width for note in notes)
    strip = _strip(axes, marks, width)
    if strip is None:
        _narrow(axes, width + LEAD_PT)
        strip = axes.get_window_extent().x1
    xs, ys = _pixels(axes, marks).T
    window = axes.get_window_extent()
    left = strip + LEAD_PT
    listed = [place for place in np.argsort(ys) if xs[place] <= strip]
    heights = spread(ys[listed], window.y0 + LINE_PT, window.y1 - LINE_PT / 2)
    for number, height in zip(listed, heights, strict=True):
        notes[number].set_position((left - xs[number], height - ys[number] - LINE_PT / 3))
    beyond = [number for number in range(len(marks)) if xs[number] > strip]
    for number in beyond:
        notes[number].remove()
    column = (left, min(heights) - LINE_PT / 2, left + width, max(heights) + LINE_PT / 2)
    labels.place(axes, [marks[number] for number in beyond], drop=True, obstacles=[column])


def spread(wanted: Array, low: float, high: float) -> list[float]:
    """Heights as near to the wanted ones as names that are ``LINE_PT`` apart can stand.

    Args:
        wanted: In rising order.
        low: The lowest that is allowed; more names than there is room for reach beyond ``high``.
        high: The highest.
    """
    # Runs of names that touch move as one, to the mean of where each of them wants the run to be.
    runs: list[_Run] = []
    for height in wanted:
        runs.append(_Run(1, float(height), low, high))
        while len(runs) > 1 and runs[-1].start < runs[-2].end:
            last, before = runs.pop(), runs.pop()
            total = before.origin_sum + last.origin_sum - before.count * LINE_PT * last.count
            runs.append(_Run(before.count + last.count, total, low, high))
    return [run.start + place * LINE_PT for run in runs for place in range(run.count)]


@dataclass(frozen=True)
class _Run:
    """Names that touch: how many, and the sum of where each wants the first of them to be."""

    count: int
    origin_sum: float
    low: float
    high: float

    @property
    def start(self) -> float:
        top = self.high - (self.count - 1) * LINE_PT
        return max(min(self.origin_sum / self.count, top), self.low)

    @property
    def end(self) -> float:
        return self.start + self.count * LINE_PT


def _strip(axes: Axes, marks: Sequence[Label], width: float) -> float | None:
    """Right edge of the points that the column stands beside; None where nothing is empty."""
    xs = np.sort(_pixels(axes, marks)[:, 0])
    ends = [*xs[1:], axes.get_window_extent().x1]
    needed = LEAD_PT + width + 2 * labels.NEAR
    for place, (x, end) in enumerate(zip(xs, ends, strict=True)):
        if end - x >= needed and place + 1 >= (1 - MOST_BESIDE) * len(xs):
            return float(x)
    return None


def _narrow(axes: Axes, points: float) -> None:
    figure = axes.get_figure()
    assert figure is not None
    share = points / figure.get_window_extent().width
    box = axes.get_position()
    axes.set_position((box.x0, box.y0, box.x1 - share - box.x0, box.height))


def _pixels(axes: Axes, marks: Sequence[Label]) -> Array:
    found: Array = axes.transData.transform([(mark.x, mark.y) for mark in marks])
    return found
