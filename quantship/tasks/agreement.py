"""How far a model's predictions are from those of the model it was made from."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quantship.runtimes.base import Classifier, Runtime
from quantship.tasks import distributions
from quantship.tasks.likelihood import answers, one_answer_each


def compare(
    runtime: Runtime | Classifier,
    reference: Runtime | Classifier,
    batches: Iterable[dict[str, Any]],
) -> dict[str, float]:
    """Logits, most likely tokens and distributions of two runtimes on the same inputs.

    Returns:
        ``max_abs_logit_diff``; ``top1_agreement``, the share of positions where both find the same
        token most likely; ``kl_nats``, the mean of KL(reference || runtime). Padding is left out.
    """
    largest, agreed, kl_sum, num_tokens = 0.0, 0, 0.0, 0
    for batch in batches:
        ours, theirs = answers(runtime, batch), answers(reference, batch)
        kl, equal, difference = distributions.distances(
            ours, theirs, np.flatnonzero(counting(batch))
        )
        largest = max(largest, difference)
        agreed += int(equal.sum())
        kl_sum += float(kl.sum())
        num_tokens += len(kl)
    return {
        "max_abs_logit_diff": largest,
        "top1_agreement": agreed / num_tokens,
        "kl_nats": kl_sum / num_tokens,
    }


def counting(batch: dict[str, Any]) -> NDArray[np.bool_]:
    """(B, T) positions of text that are no padding; (B, 1) of what has a class."""
    if one_answer_each(batch):
        return np.ones((len(batch["labels"]), 1), np.bool_)
    return np.asarray(batch["attention_mask"].numpy() == 1)
