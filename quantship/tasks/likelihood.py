"""How well a model predicts the evaluation data; the same code on every runtime."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from quantship.errors import QuantshipError
from quantship.runtimes.base import Classifier, Logits, Runtime, Tokens
from quantship.tasks import distributions

IGNORED = -100
LARGEST_LOSS = 700.0
"""Nats a token beyond which a perplexity is no number; a uniform guess is around 10."""


SEQUENCES = "sequences.json"
"""File in an evaluation's directory that holds what ``write_sequences`` was given."""


@dataclass(frozen=True, eq=False)
class Sequences:
    """What the loss of each evaluated sequence adds up from, in the order of the data.

    Args:
        nll_nats: ``[sequences]`` float64, negative log-likelihood summed over a sequence's tokens.
        num_tokens: ``[sequences]`` int64, tokens of a sequence that were predicted.
    """

    nll_nats: NDArray[np.float64]
    num_tokens: NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Likelihood:
    """How well a model predicts the data, as a whole and by sequence.

    Args:
        metrics: ``perplexity``, ``token_accuracy``, ``mean_loss`` (nats a token), ``num_tokens``.
        sequences: The sums by sequence that these come from.
        num_hits: ``[sequences]`` int64, tokens whose most likely prediction is the label.
    """

    metrics: dict[str, float]
    sequences: Sequences
    num_hits: NDArray[np.int64]


def evaluate(runtime: Runtime | Classifier, batches: Iterable[dict[str, Any]]) -> Likelihood:
    """Perplexity, token accuracy and mean loss over all tokens whose label is not -100.

    Losses are summed over tokens before they are averaged, so neither the batching nor the
    lengths of the sequences weigh in.

    Args:
        runtime: Any runtime; a classifier for what has classes.
        batches: ``input_ids``, ``labels`` and ``attention_mask`` as ``data.prepare.collate``
            makes them, labels not yet shifted. Or samples or texts with one label each, which
            count as one token.

    Raises:
        QuantshipError: The loss is not a number, or beyond all reason.
    """
    nll_nats: list[NDArray[np.float64]] = []
    num_tokens: list[NDArray[np.int64]] = []
    num_hits: list[NDArray[np.int64]] = []
    for batch in batches:
        logits, targets = _aligned(runtime, batch)
        kept = targets != IGNORED
        nll, hits = np.zeros(targets.shape), np.zeros(targets.shape, np.int64)
        nll[kept], best = distributions.nll_nats(logits, np.flatnonzero(kept), targets[kept])
        hits[kept] = best == targets[kept]
        nll_nats.append(nll.sum(axis=1))
        num_tokens.append(kept.sum(axis=1, dtype=np.int64))
        num_hits.append(hits.sum(axis=1))
    sequences = Sequences(np.concatenate(nll_nats), np.concatenate(num_tokens))
    total, hit = int(sequences.num_tokens.sum()), np.concatenate(num_hits)
    mean_loss = float(sequences.nll_nats.sum()) / total
    if not mean_loss < LARGEST_LOSS:
        raise QuantshipError(
            f"the model predicts nothing: its mean loss is {mean_loss:.4g} nats a token; it has "
            "diverged or its numbers are broken"
        )
    metrics = {
        "perplexity": math.exp(mean_loss),
        "token_accuracy": int(hit.sum()) / total,
        "mean_loss": mean_loss,
        "num_tokens": total,
    }
    return Likelihood(metrics, sequences, hit)


def _aligned(runtime: Runtime | Classifier, batch: dict[str, Any]) -> tuple[Logits, Tokens]:
    """Logits (B, T, V), and (B, T) what each position predicts; IGNORED: nothing that counts."""
    logits, labels = answers(runtime, batch), batch["labels"].numpy()
    if labels.ndim == 1:
        return logits, labels[:, None]
    targets = np.full_like(labels, IGNORED)
    targets[:, :-1] = labels[:, 1:]
    return logits, targets


def answers(runtime: Runtime | Classifier, batch: dict[str, Any]) -> Logits:
    """Logits of every position of a batch: (B, T, V), or (B, 1, V) of what is classified."""
    if one_answer_each(batch):
        inputs = {name: values.numpy() for name, values in batch.items() if name != "labels"}
        return cast("Classifier", runtime).classify(inputs)[:, None]
    return cast("Runtime", runtime).logits(
        batch["input_ids"].numpy(), batch["attention_mask"].numpy()
    )


def one_answer_each(batch: dict[str, Any]) -> bool:
    """Whether a batch is to be classified: it has one label a row, not one a token."""
    return bool(batch["labels"].ndim == 1)


def write_sequences(
    sequences: Sequences, directory: Path, num_hits: NDArray[np.int64] | None = None
) -> None:
    """Keep the sums by sequence; ``read_sequences`` gives them back to the bit."""
    columns = {
        "nll_nats": sequences.nll_nats.tolist(),
        "num_tokens": sequences.num_tokens.tolist(),
    }
    if num_hits is not None:
        columns["num_hits"] = num_hits.tolist()
    (directory / SEQUENCES).write_text(json.dumps(columns, allow_nan=False) + "\n")


def read_sequences(directory: Path) -> Sequences:
    """The sums by sequence that ``write_sequences`` left in a directory."""
    columns = json.loads((directory / SEQUENCES).read_text())
    return Sequences(
        np.array(columns["nll_nats"], dtype=np.float64),
        np.array(columns["num_tokens"], dtype=np.int64),
    )


def read_hits(directory: Path) -> NDArray[np.int64] | None:
    """Tokens predicted right by sequence; None where they were not kept."""
    columns = json.loads((directory / SEQUENCES).read_text())
    return np.array(columns["num_hits"], dtype=np.int64) if "num_hits" in columns else None


def log_softmax(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    """Log-probabilities over the last axis, in double precision."""
    shifted = logits.astype(np.float64) - logits.max(axis=-1, keepdims=True)
    result: NDArray[np.float64] = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return result
