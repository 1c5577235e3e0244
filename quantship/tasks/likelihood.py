"""How well a model predicts the evaluation data; the same code on every runtime."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quantship.errors import QuantshipError
from quantship.runtimes.base import Runtime

IGNORED = -100
LARGEST_LOSS = 700.0
"""Nats a token beyond which a perplexity is no number; a uniform guess is around 10."""


def evaluate(runtime: Runtime, batches: Iterable[dict[str, Any]]) -> dict[str, float]:
    """Perplexity, token accuracy and mean loss over all tokens whose label is not -100.

    Losses are summed over tokens before they are averaged, so neither the batching nor the
    lengths of the sequences weigh in.

    Args:
        runtime: Any runtime.
        batches: ``input_ids``, ``labels`` and ``attention_mask`` as ``data.prepare.collate``
            makes them, labels not yet shifted.

    Raises:
        QuantshipError: The loss is not a number, or beyond all reason.

    Returns:
        ``perplexity``, ``token_accuracy``, ``mean_loss`` (nats a token) and ``num_tokens``.
    """
    total_nll, hits, num_tokens = 0.0, 0, 0
    for batch in batches:
        labels = batch["labels"][:, 1:].numpy()
        logits = runtime.logits(batch["input_ids"].numpy(), batch["attention_mask"].numpy())
        kept = labels != IGNORED
        predictions, targets = logits[:, :-1][kept], labels[kept]
        total_nll -= float(log_softmax(predictions)[np.arange(len(targets)), targets].sum())
        hits += int((predictions.argmax(axis=-1) == targets).sum())
        num_tokens += len(targets)
    mean_loss = total_nll / num_tokens
    if not mean_loss < LARGEST_LOSS:
        raise QuantshipError(
            f"the model predicts nothing: its mean loss is {mean_loss:.4g} nats a token; it has "
            "diverged or its numbers are broken"
        )
    return {
        "perplexity": math.exp(mean_loss),
        "token_accuracy": hits / num_tokens,
        "mean_loss": mean_loss,
        "num_tokens": num_tokens,
    }


def log_softmax(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    """Log-probabilities over the last axis, in double precision."""
    shifted = logits.astype(np.float64) - logits.max(axis=-1, keepdims=True)
    result: NDArray[np.float64] = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return result
