"""Rows of a prepared data set side by side, as a model is called with them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, overload

from quantship.data.features import FEATURES, collate_samples
from quantship.data.templating import IGNORED
from quantship.data.texts import collate_texts

if TYPE_CHECKING:
    import torch
    from datasets import Dataset


def collate(batch: Sequence[dict[str, Any]], pad_token_id: int) -> dict[str, torch.Tensor]:
    """Pad sequences on the right to the longest of them.

    Args:
        batch: Rows of a prepared data set; samples are left to ``collate_samples``, texts that
            have a class to ``collate_texts``.
        pad_token_id: Fills ``input_ids``; labels are filled with IGNORED.

    Returns:
        ``input_ids``, ``labels`` and ``attention_mask``, each int64 [batch, longest].
    """
    import torch

    if FEATURES in batch[0]:
        return collate_samples(batch)
    if isinstance(batch[0]["labels"], int):
        return collate_texts(batch, pad_token_id)
    longest = max(len(row["input_ids"]) for row in batch)

    def padded(rows: Iterable[list[int]], fill: int) -> torch.Tensor:
        return torch.tensor([row + [fill] * (longest - len(row)) for row in rows])

    return {
        "input_ids": padded((row["input_ids"] for row in batch), pad_token_id),
        "labels": padded((row["labels"] for row in batch), IGNORED),
        "attention_mask": padded(([1] * len(row["input_ids"]) for row in batch), 0),
    }


class Batches(Sequence[dict[str, Any]]):
    """A prepared data set in order, collated, so many sequences at a time, as they are asked for.

    Args:
        dataset: The data set.
        size: Sequences of a batch; the last one may have fewer.
    """

    def __init__(self, dataset: Dataset, size: int) -> None:
        self._dataset = dataset
        self._size = size

    def __len__(self) -> int:
        """Batches there are."""
        return -(-len(self._dataset) // self._size)

    @overload
    def __getitem__(self, place: int) -> dict[str, torch.Tensor]: ...

    @overload
    def __getitem__(self, place: slice) -> list[dict[str, torch.Tensor]]: ...

    def __getitem__(self, place: int | slice) -> Any:
        """A batch, or some of them."""
        if isinstance(place, slice):
            return [self[index] for index in range(*place.indices(len(self)))]
        if not 0 <= place < len(self):
            raise IndexError(place)
        start = place * self._size
        rows = range(start, min(start + self._size, len(self._dataset)))
        return collate([self._dataset[row] for row in rows], pad_token_id=0)

    def __iter__(self) -> Iterator[dict[str, torch.Tensor]]:
        """Yield them in order."""
        return (self[index] for index in range(len(self)))


def in_batches(dataset: Dataset, size: int) -> Batches:
    """A prepared data set in order, collated, so many sequences at a time."""
    return Batches(dataset, size)
