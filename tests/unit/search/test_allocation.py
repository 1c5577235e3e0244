from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quantship.errors import QuantshipError
from quantship.search.allocation import Table, solve, span, total

numbers = st.integers(0, 1000).map(lambda number: number / 100)


@st.composite
def tables(draw: st.DrawFn) -> tuple[Table, Table]:
    """Harm and cost of the same few layers and candidates."""
    harm: dict[str, dict[str, float]] = {}
    cost: dict[str, dict[str, float]] = {}
    for layer in range(draw(st.integers(1, 5))):
        names = [f"c{index}" for index in range(draw(st.integers(1, 3)))]
        harm[f"l{layer}"] = {name: draw(numbers) for name in names}
        cost[f"l{layer}"] = {name: draw(numbers) for name in names}
    return harm, cost


def best_by_trying(harm: Table, cost: Table, limit: float) -> float:
    layers = list(harm)
    every = product(*(harm[layer] for layer in layers))
    allocations = [dict(zip(layers, one, strict=True)) for one in every]
    return min(total(harm, one) for one in allocations if total(cost, one) <= limit + 1e-12)


@settings(max_examples=60, deadline=None)
@given(tables(), st.floats(0.0, 1.0))
def test_the_best_of_all_allocations_is_found(both: tuple[Table, Table], share: float) -> None:
    harm, cost = both
    least, most = span(cost)
    limit = least + share * (most - least)
    found = solve(harm, cost, limit)
    assert total(cost, found.chosen) <= limit + 1e-8 * max(limit, 1.0)
    assert found.objective == pytest.approx(total(harm, found.chosen))
    assert found.objective <= best_by_trying(harm, cost, limit) + 1e-5
    assert found.bound <= found.objective


def test_every_layer_gets_one_of_its_own_candidates() -> None:
    harm = {"a": {"x": 1.0, "y": 0.0}, "b": {"x": 1.0}}
    cost = {"a": {"x": 1.0, "y": 5.0}, "b": {"x": 2.0}}
    assert solve(harm, cost, 6.9).chosen == {"a": "x", "b": "x"}
    assert solve(harm, cost, 7.0).chosen == {"a": "y", "b": "x"}


def test_a_limit_below_the_least_is_refused_and_the_least_is_told() -> None:
    with pytest.raises(QuantshipError, match=r"least.*3"):
        solve({"a": {"x": 1.0}}, {"a": {"x": 3.0}}, 2.9)


def test_numbers_of_any_size_are_solved_alike() -> None:
    harm = {f"l{i}": {"x": 1e-9 * (i + 1), "y": 0.0} for i in range(20)}
    cost = {f"l{i}": {"x": 1e7, "y": 2e7} for i in range(20)}
    found = solve(harm, cost, 3e8)
    assert {layer for layer, name in found.chosen.items() if name == "y"} == {
        f"l{i}" for i in range(10, 20)
    }
    assert found.gap == pytest.approx(0.0, abs=1e-6)


def test_the_solver_writes_nothing_to_the_screen(capfd: pytest.CaptureFixture[str]) -> None:
    layers = [f"l{index}" for index in range(120)]
    harm = {
        one: {str(c): (7 * i * c) % 13 / 2**c for c in range(5)} for i, one in enumerate(layers)
    }
    cost = {one: {str(c): 1.0 + c + (i * c) % 3 for c in range(5)} for i, one in enumerate(layers)}
    least, most = span(cost)
    for share in range(1, 10):
        solve(harm, cost, least + (most - least) * share / 10)
    written = capfd.readouterr()
    assert not written.out
    assert not written.err
