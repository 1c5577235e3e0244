"""Give each layer one of its formats: the least harm within a budget, by integer programming.

It is a multiple-choice knapsack. HiGHS solves it by branch and bound, so it comes with a bound that
no allocation can beat; both are reported.
"""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from quantship.errors import QuantshipError

Table = Mapping[str, Mapping[str, float]]
"""A number for each layer and each of its candidates."""
SECONDS = 60.0
"""After this long the best allocation that was found is taken, and its gap says how good it is."""
RELATIVE_GAP = 1e-6
"""A solution so near its bound is called the best."""


@dataclass(frozen=True)
class Solution:
    """An allocation and how good it is.

    Args:
        chosen: Candidate by layer.
        objective: What was made small, summed over layers.
        bound: What no allocation within the limit gets below.
    """

    chosen: dict[str, str]
    objective: float
    bound: float

    @property
    def gap(self) -> float:
        """Share of the objective that a better allocation could save at most."""
        return max(0.0, self.objective - self.bound) / abs(self.objective) if self.objective else 0


def total(table: Table, chosen: Mapping[str, str]) -> float:
    """Sum of what the chosen candidates have."""
    return math.fsum(table[layer][candidate] for layer, candidate in chosen.items())


def span(table: Table) -> tuple[float, float]:
    """Least and greatest sum that any allocation has."""
    least = math.fsum(min(one.values()) for one in table.values())
    return least, math.fsum(max(one.values()) for one in table.values())


def least(table: Table, then: Table | None = None) -> dict[str, str]:
    """The allocation with the least sum; of candidates that are equal, the least in ``then``."""
    ranks = table if then is None else then
    return {
        layer: min(one, key=lambda name: (one[name], ranks[layer][name]))
        for layer, one in table.items()
    }


def solve(objective: Table, limited: Table, limit: float) -> Solution:
    """The allocation with the least objective whose limited sum stays within the limit.

    Args:
        objective: What to make small, by layer and candidate.
        limited: What is limited, for the same layers and candidates.
        limit: Greatest sum of it.

    Raises:
        QuantshipError: Even the least sum is above the limit.
    """
    smallest = least(limited, objective)
    room = limit - total(limited, smallest)
    slack = 1e-9 * max(abs(limit), 1e-300)
    if room < -slack:
        raise QuantshipError(f"the least that can be is {total(limited, smallest):.6g}")
    if room <= slack:
        return Solution(smallest, total(objective, smallest), total(objective, smallest))
    shrunk = room
    for _ in range(4):  # the solver may exceed a limit by a millionth
        solution = _milp(objective, limited, smallest, shrunk)
        excess = total(limited, solution.chosen) - limit
        if excess <= slack:
            return solution
        shrunk -= 2 * excess
    raise AssertionError("the solver does not keep to the limit")


def _milp(objective: Table, limited: Table, smallest: Mapping[str, str], room: float) -> Solution:
    """Solve in units in which numbers are near one, with costs counted from the least possible."""
    import numpy as np
    from scipy.optimize import Bounds, LinearConstraint, milp
    from scipy.sparse import coo_array

    keys = [(layer, candidate) for layer, one in limited.items() for candidate in one]
    rows = {layer: row for row, layer in enumerate(limited)}
    harm = np.array([objective[layer][candidate] for layer, candidate in keys])
    extra = np.array(
        [limited[layer][candidate] - limited[layer][smallest[layer]] for layer, candidate in keys]
    )
    unit = float(np.abs(harm).max()) or 1.0
    each = coo_array(
        (np.ones(len(keys)), ([rows[layer] for layer, _ in keys], range(len(keys)))),
        shape=(len(rows), len(keys)),
    )
    with _quiet():
        result = milp(
            harm / unit,
            integrality=np.ones(len(keys)),
            bounds=Bounds(0, 1),
            constraints=[
                LinearConstraint(each.tocsr(), 1, 1),
                LinearConstraint(extra[None] / room, -np.inf, 1.0),
            ],
            options={"mip_rel_gap": RELATIVE_GAP, "time_limit": SECONDS},
        )
    if result.x is None:
        raise QuantshipError(f"no allocation was found: {result.message}")
    chosen = {key[0]: key[1] for key, share in zip(keys, result.x, strict=True) if share > 0.5}
    assert chosen.keys() == limited.keys()
    value = total(objective, chosen)
    return Solution(chosen, value, min(float(result.mip_dual_bound) * unit, value))


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep what HiGHS writes to standard output off the screen; no option of its own does."""
    sys.stdout.flush()
    kept = os.dup(1)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 1)
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)
        os.close(nowhere)
