"""How far a model's predictions are from those of the model it was made from."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from quantship.runtimes.base import Classifier, Runtime
from quantship.tasks.likelihood import answers, log_softmax


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
        mask = batch["attention_mask"].numpy().reshape(len(batch["labels"]), -1)
        if "features" in batch:  # each sample has one answer
            mask = np.ones_like(mask[:, :1])
        ours, theirs = answers(runtime, batch)[mask == 1], answers(reference, batch)[mask == 1]
        largest = max(largest, float(np.abs(ours - theirs).max()))
        agreed += int((ours.argmax(axis=-1) == theirs.argmax(axis=-1)).sum())
        log_q, log_p = log_softmax(ours), log_softmax(theirs)
        kl_sum += float((np.exp(log_p) * (log_p - log_q)).sum())
        num_tokens += len(ours)
    return {
        "max_abs_logit_diff": largest,
        "top1_agreement": agreed / num_tokens,
        "kl_nats": kl_sum / num_tokens,
    }
