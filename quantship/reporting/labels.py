"""Names beside the points of a scatter plot, placed so that they do not cover one another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from quantship.reporting import svg

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.text import Annotation

    Array = NDArray[np.float64]

MARKER_RADIUS = 6.0
NEAR, FAR = 9.0, 30.0
NUM_NEAR = 4
REACHES = (1.0, 1.7, 2.5, 3.4, 4.5)
"""How far a name may stand from its point, in units of ``FAR``."""
OVERLAP, OUTSIDE, CROSSED = 20.0, 60.0, 30.0
"""Costs of a square point covered, of one off the plot, and of a line across another name; places
are listed in order of preference, and each costs 1 more than the one before."""
STEPS = np.linspace(0.0, 1.0, 14)[:, None]


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


def place(
    axes: Axes,
    labels: Sequence[Label],
    *,
    drop: bool = False,
    obstacles: Sequence[tuple[float, float, float, float]] = (),
) -> bool:
    """Write every label where it covers the least; a far one gets a line to its point.

    The figure must have 72 dots an inch, and its layout must be final.

    Args:
        axes: The plot.
        labels: What to write; the first ones have the first choice of a place.
        drop: Leave out those that would cover another or a point.
        obstacles: What else is not to be covered: left, bottom, right, top.

    Returns:
        Whether all of them stand free.
    """
    if not labels:
        return True
    points = [axes.transData.transform((label.x, label.y)) for label in labels]
    taken = np.array([[x, y, x, y] for x, y in points]) + MARKER_RADIUS * np.array([-1, -1, 1, 1])
    if obstacles:
        taken = np.vstack([taken, np.array(obstacles)])
    window = axes.get_window_extent()
    page = np.array([[window.x0, window.y0, window.x1, window.y1]])
    free = True
    for label, point in zip(labels, points, strict=True):
        note = annotate(axes, label)
        extent = note.get_window_extent()
        corners = point + np.array(_offsets(extent.width, extent.height))
        boxes = np.hstack([corners, corners + np.array((extent.width, extent.height))])
        covered = _overlap(boxes, taken).sum(axis=1)
        inside = _overlap(boxes, page)[:, 0]
        costs = OVERLAP * covered + OUTSIDE * (extent.width * extent.height - inside)
        costs += CROSSED * _crossings(point, boxes, taken[len(points) :])
        best = int(np.argmin(costs + np.arange(len(boxes))))
        if covered[best] > 0:
            free = False
            if drop:
                note.remove()
                continue
        note.set_position(tuple(corners[best] - point))
        if best < NUM_NEAR and note.arrow_patch is not None:
            note.arrow_patch.set_visible(False)
        taken = np.vstack([taken, boxes[best]])
    return free


def annotate(axes: Axes, label: Label, **line: Any) -> Annotation:
    """Write a label at its point, to be moved.

    Args:
        axes: Where.
        label: What.
        line: How the line between the two is drawn otherwise; see matplotlib's ``arrowprops``.
    """
    note = axes.annotate(
        label.text,
        (label.x, label.y),
        xytext=(0, 0),
        textcoords="offset points",
        fontsize=9.5,
        color=label.colour,
        parse_math=False,
        zorder=4,
        bbox={"facecolor": svg.SURFACE, "edgecolor": "none", "pad": 0.6},
        arrowprops={"arrowstyle": "-", "color": svg.FAINT, "lw": 0.8, "shrinkB": 5, **line},
    )
    note.set_in_layout(False)
    return note


def _overlap(boxes: Array, others: Array) -> Array:
    """Areas (B, O) that boxes share with others; each is left, bottom, right, top."""
    low = np.maximum(boxes[:, None, :2], others[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], others[None, :, 2:])
    area: Array = np.clip(high - low, 0.0, None).prod(axis=-1)
    return area


def _crossings(point: Array, boxes: Array, names: Array) -> Array:
    """For each box, how many names lie under the line from its middle to the point."""
    if not len(names):
        return np.zeros(len(boxes))
    middles = (boxes[:, :2] + boxes[:, 2:]) / 2
    along = point + STEPS * (middles[:, None] - point)  # (B, S, 2)
    spots = along[:, :, None]
    inside = ((spots > names[:, :2]) & (spots < names[:, 2:])).all(axis=-1)  # (B, S, names)
    count: Array = inside.max(axis=1).sum(axis=1).astype(np.float64)
    count[:NUM_NEAR] = 0  # these have no line
    return count


def _offsets(width: float, height: float) -> list[tuple[float, float]]:
    """Lower left corners of a text around a point: right, left, above, below, then far ones."""
    middle, centre = -height / 2, -width / 2
    near = [(NEAR, middle), (-NEAR - width, middle), (centre, NEAR), (centre, -NEAR - height)]
    sideways = (NEAR, -NEAR - width, centre, FAR, -FAR - width, 3 * FAR, -3 * FAR - width)
    far = [
        (dx, dy + middle)
        for reach in REACHES
        for dy in (reach * FAR, -reach * FAR, reach * FAR / 2, -reach * FAR / 2)
        for dx in (sideways if abs(dy) >= FAR else sideways[3:])
    ]
    return near + far
