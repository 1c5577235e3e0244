"""Sources of samples become one data set of features and labels, for models that classify."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from quantship import progress
from quantship.artifact import Facts
from quantship.data import samples
from quantship.data.parts import Reading, described
from quantship.data.source import Sample
from quantship.errors import DataError

if TYPE_CHECKING:
    import torch
    from datasets import Dataset

FEATURES = "features"
"""Column that tells samples from tokenized text."""


def prepare_samples(
    readings: Sequence[Reading], *, seed: int, shuffle: bool
) -> tuple[Dataset, Facts]:
    """Read sources of samples into columns ``features`` (float32 lists) and ``labels`` (int64).

    Args:
        readings: Sources, read one after the other.
        seed: Decides the order where ``shuffle``.
        shuffle: Mix the samples of all sources.

    Returns:
        The data set, and facts, JSON values only: for each of the sources how many ``records`` it
        had, all of them used; ``samples``; ``samples_by_class``.

    Raises:
        DataError: There is no sample.
        QuantshipError: What a source needs is not installed.
    """
    from datasets import Dataset, Features, List, Value

    held: list[Sample] = []
    facts = []
    for reading in readings:
        source = reading.part.source
        read = progress.track(samples(source), reading.part.note, source.limit)
        held += reading.take(read)
        facts.append({**reading.facts(), "over_length": 0})
    if not held:
        raise DataError("there is no sample", described(readings))
    order: Iterable[int] = range(len(held))
    if shuffle:
        order = np.random.default_rng(seed).permutation(len(held))
    held = [held[index] for index in order]
    labels = [sample.label for sample in held]
    dataset = Dataset.from_dict(
        {FEATURES: [sample.features for sample in held], "labels": labels},
        features=Features({FEATURES: List(Value("float32")), "labels": Value("int64")}),
    )
    counts = {str(label): labels.count(label) for label in sorted(set(labels))}
    return dataset, {"sources": facts, "samples": len(held), "samples_by_class": counts}


def collate_samples(batch: Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]:
    """Put samples side by side.

    Args:
        batch: Rows of a prepared data set.

    Returns:
        ``features``, float32 [batch, features]; ``labels``, int64 [batch]; ``attention_mask``,
        int64 [batch, 1]: a sample counts as one token does.
    """
    import torch

    return {
        FEATURES: torch.tensor(np.array([row[FEATURES] for row in batch], dtype=np.float32)),
        "labels": torch.tensor([row["labels"] for row in batch]),
        "attention_mask": torch.ones(len(batch), 1, dtype=torch.int64),
    }
