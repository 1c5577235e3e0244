"""What a search may spend: the cost of each choice and of all the rest, and the limit."""

from __future__ import annotations

import math
from pathlib import Path
from typing import NamedTuple

from quantship.errors import QuantshipError
from quantship.models import read_config, weight_bytes
from quantship.quant.choices import Allocation, scheme_of
from quantship.quant.scheme import Scheme
from quantship.search import allocation, cost, latency, probe
from quantship.search.allocation import Solution, Table
from quantship.search.choose import Problem, least_harm
from quantship.search.probe import Files

ROUNDS = 5
"""Allocations that are tried for a size."""
UNITS = {
    "target_bits": "bits a weight",
    "max_bytes": "bytes",
    "max_latency_ms": "ms a token",
    "max_perplexity_increase": "bytes",
}
"""What the cost of an allocation is counted in, by constraint."""


class Limits(NamedTuple):
    """What is limited."""

    costs: Table
    """Of each layer that is chosen for, in each of its formats."""
    fixed_cost: float
    """Of all that is not chosen."""
    limit: float
    """Of their sum; where the perplexity is limited, the share that it may rise by."""


def limits_of(files: Files, as_large_as: Scheme | None) -> Limits:
    """What the step of a search limits.

    Args:
        files: What to measure on.
        as_large_as: Scheme whose size is the limit, where one is named.

    Raises:
        QuantshipError: The limit is below the least that can be.
    """
    step, layers = files.step, files.layers
    if step.target_bits is not None:
        weights = sum(one.num_weights for one in layers if one.is_chosen)
        average = {
            name: {candidate: bits / weights for candidate, bits in one.items()}
            for name, one in cost.bits(layers).items()
        }
        return _possible(Limits(average, 0.0, step.target_bits), step.constraint)
    sizes = probe.chosen_bytes(layers, step.runtime)
    if step.max_perplexity_increase is not None:
        return Limits(sizes, 0.0, float(step.max_perplexity_increase))
    try:
        if step.max_latency_ms is not None:
            mixed = probe.dealt(layers)
            found = _times(files, files.make(mixed), mixed)
        else:
            smallest = allocation.least(sizes)
            fixed = probe.fixed_bytes(files.make(smallest), layers, smallest)
            limit = step.max_bytes
            if as_large_as is not None:
                limit = weight_bytes(files.make_as(as_large_as))
            found = Limits(sizes, fixed, float(limit or 0))
    finally:
        files.clear()
    return _possible(found, step.constraint)


def within_bytes(problem: Problem, limit: int, files: Files) -> tuple[Solution, int]:
    """The least harmful allocation whose files, made, are within a limit; and their size.

    Graphs hold more than layers, a little more or less with the formats that meet. The smallest
    allocation is what the rest of the model was weighed with, so that it is within the limit.
    """
    least, _ = problem.cost_span
    allowed = float(limit)
    try:
        for attempt in range(ROUNDS):
            solution = least_harm(problem, allowed)
            size = weight_bytes(files.make(solution.chosen))
            if size <= limit:
                return solution, size
            steps_down = math.inf if attempt == ROUNDS - 2 else 2**attempt
            allowed = max(allowed - (size - limit) * steps_down, least)
    finally:
        files.clear()
    raise AssertionError("the smallest allocation is larger than it was")


def _possible(limits: Limits, constraint: str) -> Limits:
    least, most = Problem({}, limits.costs, fixed_cost=limits.fixed_cost).cost_span
    if limits.limit < least:
        raise QuantshipError(
            f"{constraint} of {limits.limit:,.6g} cannot be kept: candidates come to "
            f"{least:,.6g} to {most:,.6g} {UNITS[constraint]}; ask for one between, or add "
            "candidates"
        )
    return limits


def _times(files: Files, path: Path, mixed: Allocation) -> Limits:
    """Milliseconds of each choice, and of all that is not chosen."""
    scheme = scheme_of(files.base, "probe", files.layers, mixed)
    vocabulary = int(read_config(path)["vocab_size"])
    times = latency.measure(files.layers, probe.lowering_of(scheme), path, vocabulary)
    rest = max(0.0, times.whole - allocation.total(times.layers, mixed))
    return Limits(times.layers, rest, float(files.step.max_latency_ms or 0))
