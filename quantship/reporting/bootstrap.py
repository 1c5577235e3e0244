"""How sure a comparison is: the paired bootstrap over evaluated examples.

All models are given the same examples, and a resample draws the same ones for all of them. What
makes an example hard is hard for every model, so it cancels in their differences.

Source: Efron and Tibshirani, An Introduction to the Bootstrap (1993), sections 13.3 and 25.3.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from quantship.reporting.recovery_schema import Estimate

Key = TypeVar("Key", bound=Hashable)

CONFIDENCE = 0.95
NUM_RESAMPLES = 10_000
FEWEST_EXAMPLES = 10
"""Below this many, percentiles of resamples cover far less than they claim."""
LARGEST_CHUNK = 4_000_000
"""Draws in memory at once."""


@dataclass(frozen=True, eq=False)
class Mean:
    """Weighted mean of one model over examples, as its loss in nats a token.

    Args:
        value: Over all examples.
        resampled: ``[resamples]``, over each resample. Means that were made in one call of
            ``means`` share their resamples, and only those are to be compared.
    """

    value: float
    resampled: NDArray[np.float64]


def means(
    sums: Mapping[Key, NDArray[np.float64]],
    weights: NDArray[Any],
    *,
    seed: int,
    num_resamples: int = NUM_RESAMPLES,
) -> dict[Key, Mean]:
    """Means of several models over the same examples, and over resamples of those.

    Equal sums have equal means to the bit, on every resample.

    Args:
        sums: ``[examples]`` for each model: what the mean is taken of, times the weight, as the
            negative log-likelihood of a sequence.
        weights: ``[examples]``: what each counts, as the tokens that were predicted in it. Examples
            of weight 0 are left out of the resamples; some have to be positive.
        seed: The same seed draws the same resamples.
        num_resamples: How many to draw, each of as many examples as there are.
    """
    counted = np.asarray(weights) > 0
    places: dict[bytes, int] = {}
    columns: list[NDArray[np.float64]] = []
    which: dict[Key, int] = {}
    for name, column in sums.items():
        column = np.ascontiguousarray(column, dtype=np.float64)[counted]
        which[name] = places.setdefault(column.tobytes(), len(columns))
        if which[name] == len(columns):
            columns.append(column)
    table = np.column_stack([*columns, weights[counted]]).astype(np.float64)
    totals = _resampled(table, seed, num_resamples)
    resampled = totals[:, :-1] / totals[:, -1:]
    whole = table.sum(axis=0)
    return {
        name: Mean(float(whole[place] / whole[-1]), resampled[:, place])
        for name, place in which.items()
    }


def _resampled(table: NDArray[np.float64], seed: int, num_resamples: int) -> NDArray[np.float64]:
    """Sums of each column of ``[examples, columns]`` over each resample of its rows."""
    generator = np.random.default_rng(seed)
    size = len(table)
    totals = np.empty((num_resamples, table.shape[1]))
    chunk = max(1, LARGEST_CHUNK // size)
    for start in range(0, num_resamples, chunk):
        rows = min(chunk, num_resamples - start)
        drawn = generator.integers(size, size=(rows, size)) + size * np.arange(rows)[:, None]
        times = np.bincount(drawn.ravel(), minlength=rows * size).reshape(rows, size)
        totals[start : start + rows] = times @ table
    return totals


def estimate(one: Mean) -> Estimate:
    """A mean and its interval."""
    low, high = interval(one.resampled)
    return Estimate(value=one.value, low=low, high=high)


def difference(one: Mean, other: Mean) -> Estimate:
    """How much larger the mean of ``one`` is, as its loss in nats a token."""
    return estimate(minus(one, other))


def minus(one: Mean, other: Mean) -> Mean:
    """The difference of two means, on each resample too."""
    return Mean(one.value - other.value, one.resampled - other.resampled)


def share_recovered(reference: Mean, ptq: Mean, qat: Mean) -> Estimate | None:
    """``(ptq - qat) / (ptq - reference)``: 0 as lossy as PTQ, 1 as good as the float reference.

    None where PTQ lost nothing measurable: a share of what may be nothing is no number.
    """
    if difference(ptq, reference).low <= 0:
        return None
    lost = ptq.resampled - reference.resampled
    gained = ptq.resampled - qat.resampled
    # A few resamples may still have lost nothing. Of those the share is as large as can be, on
    # its own side, so that they widen the interval.
    beyond = np.copysign(np.inf, gained)
    shares = np.divide(gained, lost, out=beyond, where=lost > 0)
    low, high = interval(shares)
    if not np.isfinite([low, high]).all():
        return None
    value = (ptq.value - qat.value) / (ptq.value - reference.value)
    return Estimate(value=value, low=low, high=high)


def interval(resampled: NDArray[np.float64], confidence: float = CONFIDENCE) -> tuple[float, float]:
    """The middle share of the resamples; always two of them, as some may be infinite."""
    tail = (1 - confidence) / 2
    low, high = np.quantile(resampled, [tail, 1 - tail], method="inverted_cdf")
    return float(low), float(high)


def bound(one: Mean, confidence: float, *, upper: bool) -> float:
    """The one-sided bound that a mean keeps to in this share of the resamples."""
    share = confidence if upper else 1 - confidence
    return float(np.quantile(one.resampled, share, method="inverted_cdf"))
