"""How far two arrays of predictions are apart. Shapes: N positions, V entries."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quantship.tasks.likelihood import log_softmax
from quantship.validation.report import Agreement

Array = NDArray[Any]


def compare(
    output: str, ours: Sequence[Array], theirs: Sequence[Array], *, predicts: bool
) -> Agreement:
    """Compare two models' numbers, batch by batch.

    Args:
        output: Name of what is compared.
        ours: A's arrays, float of any leading shape and V last.
        theirs: B's, of the same shapes.
        predicts: Whether the entries are logits of which the largest is the prediction.
    """
    rows = [(_rows(one), _rows(other)) for one, other in zip(ours, theirs, strict=True)]
    finite = [np.isfinite(one).all(axis=1) & np.isfinite(other).all(axis=1) for one, other in rows]
    broken = tuple(sum(int((~np.isfinite(pair[side])).sum()) for pair in rows) for side in (0, 1))
    kept = [(one[good], other[good]) for (one, other), good in zip(rows, finite, strict=True)]
    deviation = _deviation([one for one, _ in kept])
    squares = np.concatenate([((one - other) ** 2).mean(axis=1) for one, other in kept])
    largest, total = 0.0, 0.0
    agreed, kl_ab, kl_ba = 0, 0.0, 0.0
    for one, other in kept:
        apart = np.abs(one - other)
        largest, total = max(largest, float(apart.max(initial=0.0))), total + float(apart.sum())
        if predicts and len(one):
            agreed += int((one.argmax(axis=1) == other.argmax(axis=1)).sum())
            log_a, log_b = log_softmax(one), log_softmax(other)
            kl_ab += float((np.exp(log_a) * (log_a - log_b)).sum())
            kl_ba += float((np.exp(log_b) * (log_b - log_a)).sum())
    positions = len(squares)
    numbers = sum(one.size for one, _ in kept)
    shared = predicts and positions > 0
    return Agreement(
        output=output,
        positions=positions,
        deviation=deviation,
        max_abs_diff=largest,
        mean_abs_diff=total / numbers if numbers else 0.0,
        relative=_over(float(np.sqrt(squares.mean())) if positions else 0.0, deviation),
        worst_relative=_over(float(np.sqrt(squares.max(initial=0.0))), deviation),
        not_finite=(broken[0], broken[1]),
        top1_agreement=agreed / positions if shared else None,
        kl_ab_nats=max(0.0, kl_ab / positions) if shared else None,
        kl_ba_nats=max(0.0, kl_ba / positions) if shared else None,
    )


def worst_relative(ours: Array, theirs: Array) -> float:
    """Largest root mean square difference of a position, over the deviation of ``theirs``."""
    return compare("", [theirs], [ours], predicts=False).worst_relative


def _rows(array: Array) -> Array:
    last = array.shape[-1] if array.ndim else 1
    return array.reshape(-1, last).astype(np.float64)


def _deviation(arrays: list[Array]) -> float:
    count = sum(array.size for array in arrays)
    if not count:
        return 0.0
    mean = sum(float(array.sum()) for array in arrays) / count
    return float(np.sqrt(sum(float(((array - mean) ** 2).sum()) for array in arrays) / count))


def _over(difference: float, deviation: float) -> float:
    """A difference in deviations; of numbers that are all the same, the difference itself."""
    return difference / deviation if deviation else difference
