"""Sequences joined into blocks of one length, so that no token is spent on padding."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from quantship.data.spool import Row
from quantship.data.templating import IGNORED


class Packed:
    """Blocks of sequences laid end to end; a sequence may go on in the next block.

    The last block is as long as what is left. A block without a label that some token predicts is
    left out, as its loss would be the mean of nothing.

    Args:
        rows: The sequences.
        size: Tokens of a block.
    """

    def __init__(self, rows: Iterable[Row], size: int) -> None:
        self._rows = rows
        self._size = size
        self.left_out = 0
        """Tokens of blocks that were left out so far."""

    def __iter__(self) -> Iterator[Row]:
        """Yield the blocks."""
        held: list[Row] = []
        tokens = 0
        for row in self._rows:
            held.append(row)
            tokens += len(row[0])
            if tokens >= self._size:
                whole = _joined(held)
                end = tokens // self._size * self._size
                for start in range(0, end, self._size):
                    yield from self._block(_cut(whole, start, start + self._size))
                held, tokens = [_cut(whole, end, tokens)], tokens - end
        if tokens:
            yield from self._block(_joined(held))

    def _block(self, block: Row) -> Iterator[Row]:
        if (block[1][1:] != IGNORED).any():
            yield block
        else:
            self.left_out += len(block[0])


def _joined(rows: list[Row]) -> Row:
    return np.concatenate([row[0] for row in rows]), np.concatenate([row[1] for row in rows])


def _cut(row: Row, start: int, end: int) -> Row:
    return row[0][start:end], row[1][start:end]
