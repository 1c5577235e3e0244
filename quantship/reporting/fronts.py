"""Pareto fronts: the models that no other beats in both cost and perplexity."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from quantship.reporting.comparison import is_wrong
from quantship.reporting.ranking_schema import Front, FrontPoint
from quantship.reporting.schema import ModelRow

Cost = Literal["size_bytes", "decode_tokens_per_s"]
COSTS: tuple[Cost, ...] = ("size_bytes", "decode_tokens_per_s")


def cost_of(row: ModelRow, cost: Cost) -> float | None:
    """What a model costs; None where that was not measured."""
    if cost == "size_bytes":
        return float(row.size_bytes)
    return row.benchmark.decode_tokens_per_s if row.benchmark is not None else None


def fronts(rows: Sequence[ModelRow], names: Sequence[str] | None = None) -> list[Front]:
    """The front of each cost that was measured, of all models but those whose codes are wrong.

    Args:
        rows: Models that were evaluated on the same data.
        names: What to call them; default: as they are called in their report.
    """
    called = list(zip(names or [row.name for row in rows], rows, strict=True))
    found = []
    for cost in COSTS:
        points = [
            FrontPoint(name=name, cost=price, perplexity=row.metrics.perplexity)
            for name, row in called
            if row.metrics is not None and not is_wrong(row)
            if (price := cost_of(row, cost)) is not None
        ]
        front = _front(points, dear=1 if cost == "size_bytes" else -1)
        if len(points) > 1:
            found.append(Front(cost=cost, points=front))
    return found


def _front(points: Sequence[FrontPoint], dear: int) -> list[FrontPoint]:
    """From the cheapest on, each that is better than all before it."""
    front: list[FrontPoint] = []
    for point in sorted(points, key=lambda point: (dear * point.cost, point.perplexity)):
        if not front or point.perplexity < front[-1].perplexity:
            front.append(point)
    return front
