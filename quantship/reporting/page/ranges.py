"""Static input ranges beside what calibration saw of the inputs, a small plot a kind of layer."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from statistics import median

from quantship.reporting import formatting
from quantship.reporting.layers_schema import HeldRange, HeldRanges, Layers, SeenInput, SeenInputs
from quantship.reporting.page import layer_names, panels
from quantship.reporting.page.panels import Band, Frame, Line, Panel, Set
from quantship.reporting.schema import Report

FAR = 12.0
"""An outermost number so many times the middle one bends the scale, so that both are seen."""
NOTHING = 1e-9
"""Ranges below it are drawn as if they were zero."""
LEAST_BEND = 1e-5
PALE, LESS_PALE = 0.16, 0.3
Seen = Mapping[str, SeenInput]
Held = Mapping[str, HeldRange]


def sets(report: Report) -> list[Set]:
    """All plots of ranges: a set for each float model whose inputs were seen, one for the rest."""
    if report.layers is None:
        return []
    grouped: dict[int | None, list[HeldRanges]] = {}
    for one in report.layers.ranges:
        if layer_names.by_kind(one.layers):
            grouped.setdefault(one.seen, []).append(one)
    return [
        _set(_title(report.layers, place, len(grouped)), _seen(report.layers, place), those)
        for place, those in grouped.items()
    ]


def explanation(report: Report) -> str:
    """How the plots are to be read."""
    text = (
        "Lines are the least and the greatest number that a model's codes can stand for; what lies "
        "beyond them is clipped. Layers that share their input share a plot."
    )
    seen = [] if report.layers is None else report.layers.seen
    if seen:
        share = formatting.percent(seen[0].inner_share).removesuffix("0")
        text += (
            f" Behind them, pale: all numbers that calibration saw there in the float model "
            f"({seen[0].num_sequences:,} sequences); less pale, where it was looked for: the "
            f"middle {share} % of them."
        )
    return (
        f"{text} Where a few numbers lie far out, the scale is bent: even steps are ratios there."
    )


def _title(layers: Layers, place: int | None, num_sets: int) -> str:
    if num_sets == 1:
        return ""
    if place is None:
        return "Ranges that were trained, or found block by block"
    return f"Ranges from the inputs of {layers.seen[place].model}"


def _seen(layers: Layers, place: int | None) -> SeenInputs | None:
    return None if place is None else layers.seen[place]


def _set(title: str, seen: SeenInputs | None, models: Sequence[HeldRanges]) -> Set:
    merged: dict[str, Held] = {}
    for one in models:
        alike = next((name for name, held in merged.items() if held == one.layers), None)
        held = one.layers if alike is None else merged.pop(alike)
        merged[one.model if alike is None else f"{alike}, {one.model}"] = held
    legend = panels.legend(merged)
    kinds = {entry.names: layer_names.by_kind(merged[entry.names]) for entry in legend}
    inputs = layer_names.by_kind({} if seen is None else seen.layers)
    every = dict.fromkeys(kind for found in kinds.values() for kind in found)
    shared: dict[str, list[str]] = {}
    for kind in every:
        key = repr((inputs.get(kind), [found.get(kind) for found in kinds.values()]))
        shared.setdefault(key, []).append(kind)
    drawn = []
    for those in shared.values():
        title_here = ", ".join([those[0], *(layer_names.short(kind) for kind in those[1:])])
        lines: list[Line] = []
        for entry in legend:
            held_here = kinds[entry.names].get(those[0], {})
            for end in ("low", "high"):
                points = [(block, getattr(one, end)) for block, one in sorted(held_here.items())]
                if points:
                    lines.append(Line(entry.names, points, entry.colour, entry.dash))
        bands = _bands(inputs.get(those[0], {}))
        drawn.append(Panel(title_here, _draw(title_here, lines, bands)))
    return Set(title, legend, drawn)


def _bands(inputs: Mapping[int, SeenInput]) -> list[Band]:
    outer = [(float(block), one.lowest, one.highest) for block, one in sorted(inputs.items())]
    inner = [
        (float(block), one.inner_low, one.inner_high)
        for block, one in sorted(inputs.items())
        if one.inner_low is not None and one.inner_high is not None
    ]
    bands = [Band("all numbers seen", outer, PALE)] if outer else []
    return [*bands, Band("most numbers seen", inner, LESS_PALE)] if inner else bands


def _draw(title: str, lines: Sequence[Line], bands: Sequence[Band]) -> str:
    values = [value for line in lines for _, value in line.points]
    values += [end for band in bands for _, low, high in band.points for end in (low, high)]
    places = [place for line in lines for place, _ in line.points]
    spoken = "; ".join(
        f"{line.name}: {formatting.number(min(v for _, v in line.points))} to "
        f"{formatting.number(max(v for _, v in line.points))}"
        for line in lines
    )
    frame = _frame(values, min(places), max(places))
    return panels.draw(
        frame, lines, bands, title=f"Input ranges of {title} by block", spoken=spoken
    )


def _frame(values: Sequence[float], first: float, last: float) -> Frame:
    low, high = min(*values, 0.0), max(*values, 0.0)
    if high - low < NOTHING:
        low, high = -1.0, 1.0
    reach = max(high, -low)
    middle = max(median(abs(value) for value in values), LEAST_BEND * reach)
    room = 1.12
    if reach / middle <= FAR:
        ticks = [(one, f"{one:,.4g}") for one in panels.round_numbers(low, high)]
        return Frame(first, last, low * room, high * room, ticks, float)
    bend = middle / 2
    powers = range(math.ceil(math.log10(middle)), math.floor(math.log10(reach)) + 1)
    marks = sorted([0.0, *(sign * 10.0**power for power in powers for sign in (-1, 1))])
    ticks = [(one, f"{one:,.4g}") for one in marks if low <= one <= high]
    return Frame(first, last, low * room, high * room, ticks, partial(_bent, bend))


def _bent(bend: float, value: float) -> float:
    return math.asinh(value / bend)
