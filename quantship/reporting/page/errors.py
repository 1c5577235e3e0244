"""How far rounding moved each layer: a small plot a kind of layer, and the layers moved most."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import median

from quantship.reporting.facts import FactTable
from quantship.reporting.layers_schema import RoundingErrors
from quantship.reporting.page import layer_names, panels
from quantship.reporting.page.panels import Frame, Line, Panel, Set
from quantship.reporting.schema import Report

LOG_RANGE = 5.0
WORST = 3
EXPLANATION = (
    "The norm of what rounding changed of a weight, by the norm of the weight: 0 % is exact. One "
    "plot a kind of layer, from the first block of the model to the last; those of one scheme have "
    "the same scale. A small error of weights is not a small error of outputs: algorithms that "
    "look at data make the latter small, and their errors here may be larger. Models that were "
    "trained further are left out, since what training changed is no error."
)


def sets(report: Report) -> list[Set]:
    """Plots of rounding errors, a set a scheme; none where no layer is in a block."""
    errors = [] if report.layers is None else report.layers.errors
    schemes = {row.name: row.scheme or "" for row in report.models}
    grouped: dict[str, list[RoundingErrors]] = {}
    for one in errors:
        if layer_names.by_kind(one.layers):
            grouped.setdefault(schemes.get(one.model, ""), []).append(one)
    return [
        _set(scheme if len(grouped) > 1 else "", _merged(those))
        for scheme, those in grouped.items()
    ]


def table(report: Report) -> FactTable | None:
    """For each model the middle error, and the layers with the largest ones."""
    errors = [] if report.layers is None else report.layers.errors
    if not errors:
        return None
    rows = []
    for one in errors:
        worst = sorted(one.layers, key=lambda name: -one.layers[name])[:WORST]
        named = ", ".join(f"{name} {_percent(one.layers[name])}" for name in worst)
        rows.append((one.model, _percent(median(one.layers.values())), named))
    return FactTable(("Model", "Median", "Largest"), tuple(rows))


def _merged(errors: Sequence[RoundingErrors]) -> dict[str, Mapping[str, float]]:
    """Errors by the names of all models that have just these."""
    names: dict[tuple[tuple[str, float], ...], list[str]] = {}
    for one in errors:
        names.setdefault(tuple(one.layers.items()), []).append(one.model)
    return {", ".join(models): dict(layers) for layers, models in names.items()}


def _set(title: str, models: Mapping[str, Mapping[str, float]]) -> Set:
    legend = panels.legend(models)
    kinds = {name: layer_names.by_kind(layers) for name, layers in models.items()}
    every = list(dict.fromkeys(kind for found in kinds.values() for kind in found))
    inside = [
        error for found in kinds.values() for blocks in found.values() for error in blocks.values()
    ]
    blocks = [block for found in kinds.values() for own in found.values() for block in own]
    frame = _frame(inside, min(blocks), max(blocks))
    drawn = []
    for kind in every:
        lines = [
            Line(entry.names, sorted(kinds[entry.names][kind].items()), entry.colour, entry.dash)
            for entry in legend
            if kind in kinds[entry.names]
        ]
        spoken = "; ".join(_spoken(line) for line in lines)
        picture = panels.draw(
            frame, lines, [], title=f"Rounding error of {kind} by block", spoken=spoken
        )
        drawn.append(Panel(kind, picture))
    return Set(title, legend, drawn)


def _frame(errors: Sequence[float], first: int, last: int) -> Frame:
    low, high = min(errors), max(errors)
    if low > 0 and high / low > LOG_RANGE:
        ends = (low / 1.3, high * 1.3)
        return Frame(first, last, *ends, _ticks_log(*ends), math.log)
    room = 0.15 * (high - low) or 0.1 * high or 0.01
    ends = (max(low - room, 0.0), high + room)
    ticks = [(value, _percent(value)) for value in panels.round_numbers(*ends)]
    return Frame(first, last, *ends, ticks, float)


def _ticks_log(low: float, high: float) -> list[tuple[float, str]]:
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for steps in ((1.0, 2.0, 5.0), (1.0, 3.0), (1.0,)):
        found = [step * 10.0**power for power in powers for step in steps]
        inside = [one for one in found if low <= one <= high]
        if len(inside) <= 5:
            break
    return [(one, _percent(one)) for one in inside]


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %"


def _spoken(line: Line) -> str:
    values = [value for _, value in line.points]
    return f"{line.name}: {_percent(min(values))} to {_percent(max(values))}"


def outside(report: Report) -> str:
    """A sentence on layers in no block, which no plot shows; empty without any."""
    errors = [] if report.layers is None else report.layers.errors
    found: dict[str, list[float]] = {}
    for one in errors:
        for name in layer_names.outside(one.layers):
            found.setdefault(name, []).append(one.layers[name])
    texts = []
    for name, values in found.items():
        ends = dict.fromkeys(_percent(value) for value in (min(values), max(values)))
        texts.append(f"{name} ({' to '.join(ends)})")
    return f"In no block, and not drawn: {', '.join(texts)}." if texts else ""
