"""What logits say of a vocabulary, a few positions at a time. B batch, T tokens, V vocabulary.

Logits of a batch are the largest array of an evaluation by far, and most of them are of padding or
of prompts. So nothing here makes another array of that size: positions that count are picked out
in chunks that stay in the CPU's cache.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from quantship.runtimes.base import Logits

_CHUNK = 1 << 18
"""Numbers at a time: a megabyte of float32."""

Places = NDArray[np.int64]


def nll_nats(
    logits_BTV: Logits, places: Places, targets: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Negative log-likelihoods of tokens, in nats, and the most likely tokens there.

    Exponentials are float32 and their sums float64: equal to float64 throughout within 1e-6.

    Args:
        logits_BTV: Of all positions.
        places: ``[P]`` positions as indices into (B * T,); may repeat.
        targets: ``[P]`` token at each of them.
    """
    nll = np.empty(len(places))
    best = np.empty(len(places), np.int64)
    for part, (chunk,) in _chunks(places, logits_BTV):
        rows = np.arange(len(chunk))
        best[part] = chunk.argmax(axis=-1)  # a NaN is the largest of all, so it is seen
        highest = chunk[rows, best[part]]
        wanted = chunk[rows, targets[part]].astype(np.float64)
        chunk -= highest[:, None]
        np.exp(chunk, out=chunk)
        nll[part] = np.log(chunk.sum(axis=-1, dtype=np.float64)) + highest - wanted
    return nll, best


def distances(
    ours_BTV: Logits, theirs_BTV: Logits, places: Places
) -> tuple[NDArray[np.float64], NDArray[np.bool_], float]:
    """How far two models' predictions are from each other, in float64.

    Returns:
        ``[P]`` KL(theirs || ours) in nats; ``[P]`` whether both find the same token most likely;
        the largest absolute difference of any logit.
    """
    kl = np.empty(len(places))
    agreed = np.empty(len(places), np.bool_)
    largest = 0.0
    for part, (ours, theirs) in _chunks(places, ours_BTV, theirs_BTV):
        agreed[part] = ours.argmax(axis=-1) == theirs.argmax(axis=-1)
        largest = max(largest, float(np.abs(ours - theirs).max()))
        q, p = (_shifted(logits) for logits in (ours, theirs))
        log_ratio = p - q
        np.exp(q, out=q)
        np.exp(p, out=p)
        sum_p = p.sum(axis=-1)
        kl[part] = (p * log_ratio).sum(axis=-1) / sum_p + np.log(q.sum(axis=-1) / sum_p)
    return kl, agreed, largest


def _shifted(logits: Logits) -> NDArray[np.float64]:
    shifted = logits.astype(np.float64)
    shifted -= shifted.max(axis=-1, keepdims=True)
    return shifted


def _chunks(places: Places, *logits_BTV: Logits) -> Iterator[tuple[slice, list[Logits]]]:
    """Copies of the logits at a few of the places at a time."""
    size = logits_BTV[0].shape[-1]
    flat = [logits.reshape(-1, size) for logits in logits_BTV]
    rows = max(1, _CHUNK // size)
    for start in range(0, len(places), rows):
        part = slice(start, start + rows)
        yield part, [logits[places[part]] for logits in flat]
