"""Tokenized sequences on disk, on their way from the order they are read in to another one."""

from __future__ import annotations

import os
from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from quantship.data.templating import IGNORED

if TYPE_CHECKING:
    from types import TracebackType

Tokens = NDArray[np.int32]
Row = tuple[Tokens, Tokens]
"""Ids of a sequence, and its labels: the same ids, IGNORED where the loss looks away."""


class Spool:
    """Sequences in a file of four bytes a token, in which a masked token is a negative number.

    Memory holds eight bytes a sequence, whatever its length, and as much again while they are
    shuffled.

    Args:
        path: The file, which is there until the spool is closed.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = path.open("w+b", buffering=2**20)
        self._ends = array("q", [0])

    def __len__(self) -> int:
        """Sequences so far."""
        return len(self._ends) - 1

    def __enter__(self) -> Spool:
        """The spool itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Remove the file."""
        self._file.close()
        self._path.unlink()

    def add(self, input_ids: Sequence[int], labels: Sequence[int]) -> None:
        """Append a sequence; each label is the token's id or IGNORED."""
        ids = np.array(input_ids, dtype=np.int32)
        masked = np.array(labels, dtype=np.int32) == IGNORED
        self._file.write(np.where(masked, ~ids, ids).tobytes())
        self._ends.append(self._ends[-1] + len(ids))

    def rows(self, seed: int | None) -> Iterator[Row]:
        """Yield every sequence; in the order they came where there is no seed, else shuffled."""
        self._file.flush()
        places = np.arange(len(self))
        if seed is not None:
            places = np.random.default_rng(seed).permutation(len(self))
        for place in places:
            yield self._read(int(place))

    def _read(self, place: int) -> Row:
        start, end = self._ends[place], self._ends[place + 1]
        # Read rather than mapped: mapped pages would count as memory of this process.
        signed = np.frombuffer(
            os.pread(self._file.fileno(), 4 * (end - start), 4 * start), np.int32
        )
        masked = signed < 0
        return np.where(masked, ~signed, signed), np.where(masked, np.int32(IGNORED), signed)
