"""Lengths of sequences, put together for a histogram."""

from __future__ import annotations

from collections.abc import Mapping

from quantship.previewing.schema import Bin

BINS = 12


def bins(lengths: Mapping[int, int], max_length: int) -> tuple[Bin, ...]:
    """Bins of one width up to the longest sequence that is used, and one for what is longer.

    Args:
        lengths: Tokens -> sequences of that many.
        max_length: Longest sequence that is used.
    """
    used = {length: count for length, count in lengths.items() if length <= max_length}
    longer = sum(lengths.values()) - sum(used.values())
    found = []
    if used:
        lowest, highest = min(used), max(used)
        width = -(-(highest - lowest + 1) // BINS)
        for first in range(lowest, highest + 1, width):
            last = min(first + width - 1, highest)
            count = sum(used.get(length, 0) for length in range(first, last + 1))
            found.append(Bin(first=first, last=last, sequences=count, used=True))
    if longer:
        found.append(Bin(first=max_length + 1, last=None, sequences=longer, used=False))
    return tuple(found)
