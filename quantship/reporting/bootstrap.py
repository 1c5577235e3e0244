"""How sure a comparison of losses is: the paired bootstrap over evaluated sequences.

All models predict the same sequences, and a resample draws the same ones for all of them. What
makes a sequence hard is hard for every model, so it cancels in their differences.

Source: Efron and Tibshirani, An Introduction to the Bootstrap (1993), sections 13.3 and 25.3.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from quantship.reporting.recovery_schema import Estimate

CONFIDENCE = 0.95
NUM_RESAMPLES = 10_000
FEWEST_SEQUENCES = 10
"""Below this many, percentiles of resamples cover far less than they claim."""
LARGEST_CHUNK = 4_000_000
"""Draws in memory at once."""


@dataclass(frozen=True, eq=False)
class Loss:
    """Mean loss of one model in nats a token.

    Args:
        value: On all sequences.
        resampled: ``[resamples]``, on each resample. Losses that were made in one call of
            ``mean_losses`` share their resamples, and only those are to be compared.
    """

    value: float
    resampled: NDArray[np.float64]


def mean_losses(
    nll_nats: Mapping[str, NDArray[np.float64]],
    num_tokens: NDArray[np.int64],
    *,
    seed: int,
    num_resamples: int = NUM_RESAMPLES,
) -> dict[str, Loss]:
    """Mean loss of several models on the same sequences, and on resamples of those.

    Args:
        nll_nats: ``[sequences]`` for each model: negative log-likelihood of each sequence.
        num_tokens: ``[sequences]``, positive: tokens that were predicted in each.
        seed: The same seed draws the same resamples.
        num_resamples: How many to draw, each of as many sequences as there are.
    """
    generator = np.random.default_rng(seed)
    size = len(num_tokens)
    sums = np.column_stack([*nll_nats.values(), num_tokens]).astype(np.float64)
    totals = np.empty((num_resamples, sums.shape[1]))
    chunk = max(1, LARGEST_CHUNK // size)
    for start in range(0, num_resamples, chunk):
        rows = min(chunk, num_resamples - start)
        drawn = generator.integers(size, size=(rows, size)) + size * np.arange(rows)[:, None]
        times = np.bincount(drawn.ravel(), minlength=rows * size).reshape(rows, size)
        totals[start : start + rows] = times @ sums
    means = totals[:, :-1] / totals[:, -1:]
    whole = sums.sum(axis=0)
    return {
        name: Loss(float(whole[place] / whole[-1]), means[:, place])
        for place, name in enumerate(nll_nats)
    }


def difference(one: Loss, other: Loss) -> Estimate:
    """How much larger the loss of ``one`` is, in nats a token."""
    low, high = _interval(one.resampled - other.resampled)
    return Estimate(value=one.value - other.value, low=low, high=high)


def share_recovered(reference: Loss, ptq: Loss, qat: Loss) -> Estimate | None:
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
    low, high = _interval(shares)
    if not np.isfinite([low, high]).all():
        return None
    value = (ptq.value - qat.value) / (ptq.value - reference.value)
    return Estimate(value=value, low=low, high=high)


def _interval(resampled: NDArray[np.float64]) -> tuple[float, float]:
    """The middle ``CONFIDENCE`` of the resamples; always two of them, as some may be infinite."""
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(resampled, [tail, 1 - tail], method="inverted_cdf")
    return float(low), float(high)
