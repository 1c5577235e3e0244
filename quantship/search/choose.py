"""Choose an allocation: the least harm within a cost, or the least cost within a harm."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from quantship.errors import QuantshipError
from quantship.quant.choices import Allocation
from quantship.search.allocation import Solution, Table, solve, span, total
from quantship.search.sensitivity import Damage

ROUNDS = 6
"""Allocations that are tried for a perplexity."""
NEAR_ENOUGH = 0.85
"""Share of the allowed increase from which on no cheaper allocation is looked for."""
POINTS = 20
"""Points of a Pareto front: more where it is cheap, since it is steep there."""


@dataclass(frozen=True)
class Problem:
    """What each choice does, for the layers that are chosen for.

    Args:
        harm: Predicted, in nats a token.
        cost: In the unit that is limited.
        fixed_harm: Of layers that are not chosen for.
        fixed_cost: Of all that is not chosen.
    """

    harm: Table
    cost: Table
    fixed_harm: float = 0.0
    fixed_cost: float = 0.0

    def cost_of(self, chosen: Allocation) -> float:
        """Cost of a model in these formats."""
        return self.fixed_cost + total(self.cost, chosen)

    def harm_of(self, chosen: Allocation) -> float:
        """Harm that is predicted of a model in these formats."""
        return self.fixed_harm + total(self.harm, chosen)

    @property
    def cost_span(self) -> tuple[float, float]:
        """Least and greatest cost of any allocation."""
        least, most = span(self.cost)
        return self.fixed_cost + least, self.fixed_cost + most


class Point(NamedTuple):
    """An allocation on the Pareto front."""

    cost: float
    harm: float


class Attempt(NamedTuple):
    """An allocation that was tried for a perplexity."""

    predicted: float
    """Harm that was allowed by prediction, in nats."""
    measured: float
    """What the loss rose by, in nats."""
    cost: float


def least_harm(problem: Problem, limit: float) -> Solution:
    """The allocation with the least predicted harm whose cost is within a limit.

    Raises:
        QuantshipError: The cheapest allocation costs more.
    """
    return solve(problem.harm, problem.cost, limit - problem.fixed_cost)


def front(problem: Problem) -> list[Point]:
    """The least predicted harm at costs from the least to the greatest."""
    least, most = problem.cost_span
    points: list[Point] = []
    for step in range(POINTS):
        limit = least + (most - least) * (step / (POINTS - 1)) ** 2
        chosen = least_harm(problem, limit).chosen
        point = Point(problem.cost_of(chosen), problem.harm_of(chosen))
        if not points or point.harm < points[-1].harm:
            points.append(point)
    return points


def least_cost(
    problem: Problem, allowed_nats: float, measure: Callable[[Allocation], Damage]
) -> tuple[Solution, list[Attempt]]:
    """The cheapest allocation with which the loss, measured, rises by no more than is allowed.

    What is predicted is a sum over layers, and what is measured is not, so the allowed prediction
    is shrunk or stretched by what it was off, a few times.

    Args:
        problem: Whose cost is made small.
        allowed_nats: What the loss may rise by.
        measure: What an allocation does to the model.

    Raises:
        QuantshipError: Not even the least harmful allocation keeps to it.
    """
    least, most = span(problem.harm)
    attempts: list[Attempt] = []
    best: Solution | None = None
    limit = min(max(allowed_nats - problem.fixed_harm, least), most)
    low, high = least, math.inf  # limits that hold, and that do not
    for _ in range(ROUNDS):
        solution = _cheapest(problem, limit)
        measured = measure(solution.chosen).loss_nats
        cost = problem.cost_of(solution.chosen)
        attempts.append(Attempt(limit + problem.fixed_harm, measured, cost))
        predicted = total(problem.harm, solution.chosen)
        if measured <= allowed_nats:
            low = limit
            if best is None or cost < problem.cost_of(best.chosen):
                best = solution
            if measured >= NEAR_ENOUGH * allowed_nats or limit >= most:
                break
        else:
            high = min(high, predicted)  # from there down it is another allocation
        factor = min(max(allowed_nats / measured if measured > 0 else 4.0, 0.25), 4.0)
        following = min((predicted + problem.fixed_harm) * factor - problem.fixed_harm, most)
        if not low < following < high - (high - low) / 10:
            following = (low + high) / 2 if math.isfinite(high) else most
        if following in (low, limit):
            break
        limit = following
    if best is None:
        chosen = solve(problem.harm, problem.cost, span(problem.cost)[1]).chosen
        rise = measure(chosen).loss_nats
        attempts.append(Attempt(least + problem.fixed_harm, rise, problem.cost_of(chosen)))
        if rise > allowed_nats:
            raise QuantshipError(
                f"no allocation keeps the perplexity within {math.expm1(allowed_nats):.2%}: with "
                f"the least harmful candidate in every layer it rises by {math.expm1(rise):.2%}"
            )
        best = _cheapest(problem, least)
    return best, attempts


def _cheapest(problem: Problem, limit: float) -> Solution:
    """The least cost within a predicted harm, and of all allocations of it the least harmful."""
    cheapest = solve(problem.cost, problem.harm, limit)
    spent = total(problem.cost, cheapest.chosen)
    chosen = solve(problem.harm, problem.cost, spent).chosen
    return Solution(chosen, total(problem.cost, chosen), cheapest.bound)
