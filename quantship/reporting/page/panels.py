"""Small plots side by side, one a kind of layer, that wrap to the width of the page.

They are drawn here rather than by matplotlib, since there are many of them: each is a few hundred
bytes of SVG, its title and its legend are text of the page, and on a phone they stand below one
another at a size that can be read.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from html import escape

from quantship.reporting import svg

WIDTH, HEIGHT = 260.0, 150.0
LEFT, RIGHT, TOP, BOTTOM = 44.0, 8.0, 8.0, 20.0
FEW_POINTS = 8
"""Points up to which each gets a dot."""
SMALLEST_STEP = 1e-12
DASHES = ("", "5 3", "1.5 3")
Scale = Callable[[float], float]


@dataclass(frozen=True)
class Line:
    """One line of a panel.

    Args:
        name: What it is of.
        points: Place along the panel and value of each, in order.
        colour: Place in the palette.
        dash: Which of the dashes.
    """

    name: str
    points: Sequence[tuple[float, float]]
    colour: int
    dash: int = 0


@dataclass(frozen=True)
class Band:
    """An area of a panel.

    Args:
        name: What it is of.
        points: Place along the panel, lower and upper end of each, in order.
        strength: Opacity.
    """

    name: str
    points: Sequence[tuple[float, float, float]]
    strength: float


@dataclass(frozen=True)
class Frame:
    """What the axes of a panel are.

    Args:
        first: Place at the left end.
        last: Place at the right end.
        low: Value at the bottom.
        high: Value at the top.
        ticks: Values that are named at the left, and their names.
        scale: Makes values even; a logarithm or itself.
    """

    first: float
    last: float
    low: float
    high: float
    ticks: Sequence[tuple[float, str]]
    scale: Scale

    def x(self, place: float) -> float:
        """Pixels from the left."""
        span = self.last - self.first
        share = (place - self.first) / span if span else 0.5
        return round(LEFT + share * (WIDTH - LEFT - RIGHT), 1)

    def y(self, value: float) -> float:
        """Pixels from the top."""
        low, high = self.scale(self.low), self.scale(self.high)
        share = (self.scale(value) - low) / (high - low) if high > low else 0.5
        return round(HEIGHT - BOTTOM - min(max(share, 0.0), 1.0) * (HEIGHT - TOP - BOTTOM), 1)


@dataclass(frozen=True)
class Entry:
    """One line of a legend.

    Args:
        names: What the line is of.
        colour: Place in the palette.
        dash: Which of the dashes.
    """

    names: str
    colour: int
    dash: int


@dataclass(frozen=True)
class Panel:
    """One small plot.

    Args:
        title: What it is.
        svg: The plot.
    """

    title: str
    svg: str


@dataclass(frozen=True)
class Set:
    """Plots that share a legend.

    Args:
        title: What they have in common; empty: all there is.
        legend: Their lines.
        panels: The plots.
    """

    title: str
    legend: list[Entry]
    panels: list[Panel]


def legend(names: Iterable[str]) -> list[Entry]:
    """An entry a name, no two alike."""
    count = len(svg.PALETTE) - 1  # the first colour is that of what lies behind
    return [
        Entry(name, 1 + place % count, place // count % len(DASHES))
        for place, name in enumerate(names)
    ]


def round_numbers(low: float, high: float) -> list[float]:
    """A few round numbers between two others, in rising order; none where these are one."""
    rough = (high - low) / 3
    if rough < SMALLEST_STEP:
        return []
    power = 10.0 ** math.floor(math.log10(rough))
    step = max(one * power for one in (1.0, 2.0, 5.0) if one == 1 or one * power <= rough)
    first, last = math.ceil(low / step), math.floor(high / step)
    return [float(f"{place * step:.9g}") for place in range(first, last + 1)]


def draw(
    frame: Frame, lines: Sequence[Line], bands: Sequence[Band], *, title: str, spoken: str
) -> str:
    """One panel as an ``<svg>`` element.

    Args:
        frame: Its axes.
        lines: In front.
        bands: Behind them, the first at the very back.
        title: What it is, in a few words.
        spoken: What it shows, for those who cannot see it.
    """
    parts = [*_grid(frame), *(_band(frame, band) for band in bands)]
    for line in lines:
        parts += _line(frame, line)
    label = escape(f"{title}. {spoken}", quote=True)
    return (
        f'<svg viewBox="0 0 {WIDTH:g} {HEIGHT:g}" role="img" aria-label="{label}">'
        f"{''.join(parts)}</svg>"
    )


def _grid(frame: Frame) -> list[str]:
    parts = []
    for value, name in frame.ticks:
        y = frame.y(value)
        parts.append(f'<line class="grid" x1="{LEFT:g}" x2="{WIDTH - RIGHT:g}" y1="{y}" y2="{y}"/>')
        parts.append(f'<text x="{LEFT - 5:g}" y="{y + 3.5:g}" text-anchor="end">{name}</text>')
    bottom = HEIGHT - 5
    for place, anchor, name in ((frame.first, "start", "block "), (frame.last, "end", "")):
        x = frame.x(place) if frame.last > frame.first else WIDTH / 2
        parts.append(
            f'<text x="{x:g}" y="{bottom:g}" text-anchor="{anchor}">{name}{place:g}</text>'
        )
        if frame.last == frame.first:
            break
    return parts


def _band(frame: Frame, band: Band) -> str:
    there = [(frame.x(place), frame.y(high)) for place, _, high in band.points]
    back = [(frame.x(place), frame.y(low)) for place, low, _ in reversed(band.points)]
    if len(band.points) == 1:  # an area of no width is not seen
        (x, top), (_, bottom) = there[0], back[0]
        there, back = [(x - 12, top), (x + 12, top)], [(x + 12, bottom), (x - 12, bottom)]
    points = " ".join(f"{x:g},{y:g}" for x, y in [*there, *back])
    name = escape(band.name)
    return (
        f'<polygon class="band" points="{points}" fill-opacity="{band.strength:g}">'
        f"<title>{name}</title></polygon>"
    )


def _line(frame: Frame, line: Line) -> list[str]:
    places = [(frame.x(place), frame.y(value)) for place, value in line.points]
    points = " ".join(f"{x:g},{y:g}" for x, y in places)
    colour, name = f"var(--c{line.colour})", f"<title>{escape(line.name)}</title>"
    dash = f' stroke-dasharray="{DASHES[line.dash]}"' if DASHES[line.dash] else ""
    parts = [f'<polyline points="{points}" style="stroke: {colour}"{dash}>{name}</polyline>']
    if len(places) <= FEW_POINTS:
        parts += [
            f'<circle cx="{x:g}" cy="{y:g}" r="2.6" style="fill: {colour}">{name}</circle>'
            for x, y in places
        ]
    return parts
