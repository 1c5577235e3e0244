"""Where the numbers of a metric lie between the two ends of a plot."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from quantship.reporting.evidence_schema import MetricFacts
from quantship.reporting.page import panels
from quantship.reporting.recovery_schema import Estimate

LOG_RANGE = 4.0
"""From this ratio of the greatest to the least on, perplexities lie on a logarithmic axis."""
STEPS = (1.0, 2.0, 5.0)


@dataclass(frozen=True)
class Axis:
    """Where numbers lie between the left and the right end of a plot.

    Args:
        low: Number at the left end.
        high: Number at the right end.
        log: Whether ratios are even, not differences.
    """

    low: float
    high: float
    log: bool = False

    def place(self, number: float) -> float:
        """Per cent of the way from left to right, within 0 to 100."""
        low, high, here = (self._scaled(one) for one in (self.low, self.high, number))
        return round(min(max(100 * (here - low) / (high - low), 0.0), 100.0), 2)

    def ticks(self) -> list[float]:
        """A few round numbers between the ends, in rising order."""
        if self.log:
            exponents = range(
                math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1
            )
            found = [step * 10.0**power for power in exponents for step in STEPS]
            inside = [one for one in found if self.low <= one <= self.high]
            return inside if len(inside) < 7 else inside[:: math.ceil(len(inside) / 6)]
        return panels.round_numbers(self.low, self.high)

    def _scaled(self, number: float) -> float:
        return math.log(max(number, 1e-300)) if self.log else number


def of(metric: MetricFacts, estimates: Iterable[Estimate]) -> Axis:
    """An axis that holds all intervals, with some room beside them."""
    ends: Sequence[float] = [end for one in estimates for end in (one.low, one.value, one.high)]
    low, high = min(ends), max(ends)
    if metric.kind == "perplexity" and low > 0 and high / low > LOG_RANGE:
        return Axis(low / 1.15, high * 1.15, log=True)
    room = 0.06 * (high - low) or abs(high) * 0.1 or 0.1
    low, high = low - room, high + room
    if metric.kind == "share":
        low, high = max(low, 0.0), min(high, 1.0)
    elif min(ends) >= 0:
        low = max(low, 0.0)
    return Axis(low, high)
