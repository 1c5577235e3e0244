"""Records that are both trained and evaluated on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Hashes = NDArray[np.uint64]
_READ_AT_ONCE = 2**20


def count(train: Iterable[Path], evaluation: Sequence[Path]) -> list[int]:
    """How many records of each file to evaluate on are in one of the files to train on.

    Memory holds the hashes to evaluate on, eight bytes a record, and some of those to train on.

    Args:
        train: Files of 64-bit hashes, as ``parts.Reading`` writes them.
        evaluation: The same, of what is evaluated on.
    """
    asked: list[Hashes] = [np.fromfile(path, dtype=np.uint64) for path in evaluation]
    known = np.unique(np.concatenate([*asked, np.empty(0, dtype=np.uint64)]))
    found = np.zeros(len(known), dtype=bool)
    if len(known):
        for some in _chunks(train):
            places = np.minimum(np.searchsorted(known, some), len(known) - 1)
            found[places[known[places] == some]] = True
    return [int(found[np.searchsorted(known, hashes)].sum()) for hashes in asked]


def _chunks(paths: Iterable[Path]) -> Iterator[Hashes]:
    for path in paths:
        with path.open("rb") as file:
            while len(some := np.fromfile(file, dtype=np.uint64, count=_READ_AT_ONCE)):
                yield some
