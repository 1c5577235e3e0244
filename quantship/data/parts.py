"""Which records of a source a data set takes, and what they are known by.

A record is known by a hash of what it says, so it falls on the same side of a split however its
file grows or is sorted, and two equal records never fall on different sides.
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from quantship.artifact import Facts, digest_file
from quantship.data import Source, local_files
from quantship.data.source import Example, Labelled, Sample

Record = TypeVar("Record", Example, Labelled, Sample)
_HASHES_AT_ONCE = 2**16


@dataclass(frozen=True)
class Holdout:
    """A split of records in two.

    Args:
        share: Of the records, from 0 to 1: what is held out.
        seed: Another one holds out others.
    """

    share: float
    seed: int

    def holds(self, identity: bytes) -> bool:
        """Whether the record with this identity is held out."""
        salted = hashlib.sha256(f"holdout {self.seed}\n".encode() + identity).digest()
        return int.from_bytes(salted[:8], "big") < self.share * 2**64


@dataclass(frozen=True)
class Part:
    """What a data set takes of a source.

    Args:
        source: The source.
        holdout: How the source is split; None: all of it is taken.
        held_out: Take what is held out, rather than the rest.
    """

    source: Source
    holdout: Holdout | None = None
    held_out: bool = False

    @property
    def note(self) -> str:
        """What a progress bar says of reading it."""
        return f"reading {self.source.adapter}" + (", held out" if self.held_out else "")


class Reading:
    """The records of one part on their way into a data set, counted and known again.

    Args:
        part: What to take.
        hashes: File to write a 64-bit hash of each record to, in their order; None: none is kept.
    """

    def __init__(self, part: Part, hashes: Path | None = None) -> None:
        self.part = part
        self.records = 0
        """Records taken so far."""
        self.others = 0
        """Records that belong to the other side of the split."""
        self._sum = 0
        self._hashes = hashes
        self._held = array("Q")

    def take(self, found: Iterable[Record]) -> Iterator[Record]:
        """Yield the records of the part, in their order."""
        holdout, held_out = self.part.holdout, self.part.held_out
        for record in found:
            known_by = identity(record)
            if holdout is not None and holdout.holds(known_by) != held_out:
                self.others += 1
                continue
            self.records += 1
            self._sum += int.from_bytes(known_by, "big")
            self._keep(known_by)
            yield record
        self._write()

    def facts(self) -> Facts:
        """What a reader of a report is told: counts, the digests of files, and of what they say."""
        split = self.part.holdout is not None
        return {
            "adapter": self.part.source.adapter,
            "records": self.records,
            **({"held_out": self.part.held_out, "other_side": self.others} if split else {}),
            # A sum, so that it is the same in whatever order the records come.
            "records_digest": f"{self._sum % 2**256:064x}",
            "digests": [digest_file(path) for path in local_files(self.part.source)],
        }

    def _keep(self, known_by: bytes) -> None:
        if self._hashes is not None:
            self._held.append(int.from_bytes(known_by[:8], "big"))
            if len(self._held) >= _HASHES_AT_ONCE:
                self._write()

    def _write(self) -> None:
        if self._hashes is not None:
            with self._hashes.open("ab") as file:
                self._held.tofile(file)
            self._held = array("Q")


def identity(record: Example | Labelled | Sample) -> bytes:
    """SHA-256 of what a record says: a chat's turns, a text to classify, a sample's features.

    A class is left out of it, so that a text cannot be learnt with one and asked for with another.
    """
    whole = hashlib.sha256()
    if isinstance(record, Sample):
        whole.update(record.features.astype("<f4").tobytes())
    else:
        for part in _texts(record):
            encoded = part.encode("utf-8", "surrogatepass")
            whole.update(f"{len(encoded)}\n".encode())
            whole.update(encoded)
    return whole.digest()


def _texts(record: Example | Labelled) -> Iterator[str]:
    if isinstance(record, Labelled):
        yield from record.texts
    else:
        for message in record.messages:
            yield message["role"]
            yield message["content"]


def described(readings: Iterable[Reading]) -> str:
    """What an error calls some sources."""
    sources = [reading.part.source for reading in readings]
    return ", ".join(f"{source.adapter} {source.split}" for source in sources) or "no source"


def sides(
    train: Iterable[Source], evaluation: Iterable[Source], holdout: Holdout | None
) -> tuple[list[Part], list[Part]]:
    """What to train on and what to evaluate on.

    What is held out of the sources to train on is evaluated on after the sources to evaluate on.
    """
    sources = list(train)
    kept = [Part(source, holdout) for source in sources]
    held_out = [Part(source, holdout, held_out=True) for source in sources] if holdout else []
    return kept, [*map(Part, evaluation), *held_out]
