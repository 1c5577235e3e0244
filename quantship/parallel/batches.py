"""The micro-batches that one of several processes computes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from accelerate.data_loader import SeedableRandomSampler
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from quantship.data.templating import IGNORED
from quantship.parallel.share import Share

Collate = Callable[[Any], dict[str, Tensor]]


class ShareLoader(DataLoader[Any]):
    """A process's share of each epoch.

    Args:
        dataset: All of the data; must have ``__getitems__``, as data sets of ``datasets`` do.
        collate: Makes a batch of rows.
        share: How steps are shared.
        index: Of the process.
        seed: Of the order, which is the one that Trainer takes where it trains alone.
        pin_memory: As of PyTorch's loader.
    """

    def __init__(
        self, dataset: Any, collate: Collate, share: Share, index: int, seed: int, pin_memory: bool
    ) -> None:
        self._places = _Places(len(dataset), share, index, seed)
        super().__init__(
            _Rows(dataset),
            batch_sampler=self._places,
            collate_fn=_Filling(collate),
            pin_memory=pin_memory,
        )

    def set_epoch(self, epoch: int) -> None:
        """Take the order of this epoch from now on; Trainer calls it."""
        self._places.set_epoch(epoch)


class _Places(Sampler[list[int]]):
    """Indices of the rows of each micro-batch; -1 for what only fills it."""

    def __init__(self, num_rows: int, share: Share, index: int, seed: int) -> None:
        # One process alone takes its order from this sampler too, by way of accelerate.
        self._order = SeedableRandomSampler(range(num_rows), data_seed=seed)
        self._num_rows = num_rows
        self._micro_batches = share.micro_batches(index, num_rows)
        self.batch_size = share.batch_size
        self.drop_last = False

    def set_epoch(self, epoch: int) -> None:
        """See ``ShareLoader``; Trainer calls this one in the middle of an epoch."""
        self._order.set_epoch(epoch)

    def __len__(self) -> int:
        return len(self._micro_batches)

    def __iter__(self) -> Iterator[list[int]]:
        order = list(self._order)
        for places in self._micro_batches:
            yield [order[place] if place < self._num_rows else -1 for place in places]


@dataclass(frozen=True)
class _Some:
    """Rows of a micro-batch.

    Args:
        rows: At least one, for its shapes.
        present: How many of them are there to be learnt from.
        missing: How many sequences the micro-batch lacks.
    """

    rows: list[dict[str, Any]]
    present: int
    missing: int


class _Rows(Dataset[Any]):
    def __init__(self, dataset: Any) -> None:
        self._dataset = dataset

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, index: int) -> Any:
        return self._dataset[index]

    def __getitems__(self, indices: list[int]) -> _Some:
        present = [index for index in indices if index >= 0]
        rows = self._dataset.__getitems__(present or [0])
        return _Some(rows, len(present), len(indices) - len(present))


class _Filling:
    """Collates what is there, and fills the micro-batch with sequences that count nothing."""

    def __init__(self, collate: Collate) -> None:
        self._collate = collate

    def __call__(self, some: Any) -> dict[str, Tensor]:
        made = self._collate(some.rows)
        if not some.missing:
            return made
        return {name: _filled(name, tensor, some) for name, tensor in made.items()}


def _filled(name: str, tensor: Tensor, some: _Some) -> Tensor:
    fillers = tensor.new_zeros(some.missing, *tensor.shape[1:])
    if name == "labels":
        fillers.fill_(IGNORED)
    elif name == "attention_mask":
        fillers[:, 0] = 1  # who attends to nothing at all computes NaN
    return torch.cat([tensor[: some.present], fillers])


def counts(labels: Tensor) -> Tensor:
    """Which sequences of a micro-batch are there to be learnt from: bool [batch]."""
    return labels.ne(IGNORED).reshape(len(labels), -1).any(dim=1)
