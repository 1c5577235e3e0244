"""Names beside the points of a scatter plot, placed so that they do not cover one another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from quantship.reporting import svg

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MARKER_RADIUS = 6.0
NEAR, FAR = 9.0, 30.0


@dataclass(frozen=True)
class Label:
    """A point in data coordinates and the text that belongs to it."""

    x: float
    y: float
    text: str
    colour: str


@dataclass(frozen=True)
class Box:
    """A rectangle on the canvas, in points."""

    left: float
    bottom: float
    width: float
    height: float

    def overlap(self, other: Box) -> float:
        """Area that two boxes share, in square points."""
        width = min(self.left + self.width, other.left + other.width) - max(self.left, other.left)
        height = min(self.bottom + self.height, other.bottom + other.height) - max(
            self.bottom, other.bottom
        )
        return max(width, 0.0) * max(height, 0.0)


def place(axes: Axes, labels: Sequence[Label]) -> None:
    """Write every label where it covers the least; a far one gets a line to its point.

    The figure must have 72 dots an inch, and its layout must be final.
    """
    points = [axes.transData.transform((label.x, label.y)) for label in labels]
    size = 2 * MARKER_RADIUS
    taken = [Box(x - MARKER_RADIUS, y - MARKER_RADIUS, size, size) for x, y in points]
    window = axes.get_window_extent()
    page = Box(window.x0, window.y0, window.width, window.height)
    for label, (x, y) in zip(labels, points, strict=True):
        note = axes.annotate(
            label.text,
            (label.x, label.y),
            xytext=(0, 0),
            textcoords="offset points",
            fontsize=9.5,
            color=label.colour,
            parse_math=False,
            arrowprops={"arrowstyle": "-", "color": svg.FAINT, "lw": 0.8, "shrinkB": 5},
        )
        note.set_in_layout(False)
        extent = note.get_window_extent()
        width, height = extent.width, extent.height
        candidates = [Box(x + dx, y + dy, width, height) for dx, dy in _offsets(width, height)]
        # A place further down the list costs a little, so that the first free one is taken.
        costs = [
            sum(box.overlap(other) for other in taken)
            + 3 * (width * height - box.overlap(page))
            + order
            for order, box in enumerate(candidates)
        ]
        best = costs.index(min(costs))
        box = candidates[best]
        note.set_position((box.left - x, box.bottom - y))
        if best < NUM_NEAR and note.arrow_patch is not None:
            note.arrow_patch.set_visible(False)
        taken.append(box)


NUM_NEAR = 4


def _offsets(width: float, height: float) -> list[tuple[float, float]]:
    """Lower left corners of a text around a point: right, left, above, below, then far ones."""
    middle, centre = -height / 2, -width / 2
    near = [(NEAR, middle), (-NEAR - width, middle), (centre, NEAR), (centre, -NEAR - height)]
    far = [
        (dx, dy + middle)
        for reach in (FAR, 1.7 * FAR)
        for dy in (reach, -reach)
        for dx in (NEAR, -NEAR - width, centre)
    ]
    return near + far
