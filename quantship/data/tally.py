"""What became of the records of a source, counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from quantship.artifact import Facts

PERCENTILES = {"min": 0, "p50": 50, "p90": 90, "p99": 99, "max": 100}


@dataclass
class Tally:
    """What became of the records of one source; memory holds a number for each length there is."""

    used: int = 0
    over_length: int = 0
    untokenized: int = 0
    """Those of ``over_length`` that are so long that nobody counted their tokens."""
    all_masked: int = 0
    windows: int = 0
    short_windows: int = 0
    tokens: int = 0
    """Of what is used."""
    learnt_tokens: int = 0
    """Of them, those that are not masked."""
    lengths: Counter[int] = field(default_factory=Counter)
    """Tokens of a chat or window -> how many there are; those over length too."""

    def facts(self) -> Facts:
        """The counts, JSON values only."""
        return {
            "used": self.used,
            "over_length": self.over_length,
            "untokenized": self.untokenized,
            "all_masked": self.all_masked,
            "windows": self.windows,
            "short_windows": self.short_windows,
        }


def merged(tallies: Iterable[Tally]) -> Counter[int]:
    """Lengths of all sources."""
    lengths: Counter[int] = Counter()
    for tally in tallies:
        lengths.update(tally.lengths)
    return lengths


def percentiles(lengths: Mapping[int, int]) -> dict[str, int]:
    """The smallest length that such a share of all does not exceed; empty where there is none."""
    found = {}
    total = sum(lengths.values())
    for name, percent in PERCENTILES.items():
        wanted = max(1, -(-total * percent // 100))
        for length in sorted(lengths):
            wanted -= lengths[length]
            if wanted <= 0:
                found[name] = length
                break
    return found
