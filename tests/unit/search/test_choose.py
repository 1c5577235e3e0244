from __future__ import annotations

import itertools
import math
from collections.abc import Mapping

import pytest

from quantship.errors import QuantshipError
from quantship.search.allocation import solve
from quantship.search.choose import Problem, front, least_cost, least_harm
from quantship.search.sensitivity import Damage

LAYERS = [f"l{index}" for index in range(12)]
PROBLEM = Problem(
    {
        layer: {"wide": 1e-6, "middle": 1e-3 * (1 + index), "narrow": 1e-2 * (1 + index)}
        for index, layer in enumerate(LAYERS)
    },
    {layer: {"wide": 8.0, "middle": 4.0, "narrow": 2.0} for layer in LAYERS},
    fixed_harm=1e-4,
    fixed_cost=10.0,
)


def test_fixed_costs_count_against_the_limit() -> None:
    chosen = least_harm(PROBLEM, 10.0 + 4.0 * 12).chosen
    assert PROBLEM.cost_of(chosen) <= 58.0
    assert PROBLEM.cost_span == (34.0, 106.0)


def test_along_the_front_more_cost_does_less_harm() -> None:
    points = front(PROBLEM)
    assert points[0].cost == 34.0
    assert points[-1].harm == pytest.approx(1e-4 + 12e-6)
    for one, other in itertools.pairwise(points):
        assert one.cost < other.cost
        assert one.harm > other.harm


@pytest.mark.parametrize("off", [0.3, 1.0, 3.0])
@pytest.mark.parametrize("allowed", [0.01, 0.05, 0.2])
def test_what_is_allowed_holds_when_measured(off: float, allowed: float) -> None:
    def measure(chosen: Mapping[str, str]) -> Damage:
        return Damage(0.0, PROBLEM.harm_of(chosen) * off)

    solution, attempts = least_cost(PROBLEM, allowed, measure)
    assert measure(solution.chosen).loss_nats <= allowed
    held = [one for one in attempts if one.measured <= allowed]
    assert PROBLEM.cost_of(solution.chosen) == min(one.cost for one in held)
    best = solve(PROBLEM.cost, PROBLEM.harm, allowed / off - PROBLEM.fixed_harm).objective
    assert PROBLEM.cost_of(solution.chosen) <= 1.15 * (best + PROBLEM.fixed_cost)


def test_a_model_that_nothing_harms_becomes_as_cheap_as_can_be() -> None:
    solution, _ = least_cost(PROBLEM, 0.01, lambda chosen: Damage(0.0, -0.001))
    assert PROBLEM.cost_of(solution.chosen) == PROBLEM.cost_span[0]


def test_what_cannot_be_kept_is_refused_with_what_can() -> None:
    with pytest.raises(QuantshipError, match=r"rises by 5\.00%"):
        least_cost(PROBLEM, 0.01, lambda chosen: Damage(0.0, math.log(1.05)))
