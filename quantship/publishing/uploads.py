"""Files on their way to a repository: where each goes, and what is in it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from quantship.artifact import digest_file

SUMS = "SHA256SUMS"


@dataclass(frozen=True)
class Upload:
    """One file of a repository.

    Args:
        path: Where it goes, with forward slashes.
        source: The file on this machine, or its content where there is none.
    """

    path: str
    source: Path | bytes

    @property
    def size_bytes(self) -> int:
        """Its size in bytes."""
        return len(self.source) if isinstance(self.source, bytes) else self.source.stat().st_size

    @cached_property
    def sha256(self) -> str:
        """SHA-256 of its content, in hexadecimal."""
        if isinstance(self.source, bytes):
            return hashlib.sha256(self.source).hexdigest()
        return digest_file(self.source)

    def read(self) -> bytes:
        """Its content."""
        return self.source if isinstance(self.source, bytes) else self.source.read_bytes()


def with_sums(uploads: Iterable[Upload]) -> tuple[Upload, ...]:
    """All files by path, and SHA256SUMS of them: ``sha256sum -c SHA256SUMS`` checks a download."""
    every = sorted(uploads, key=lambda one: one.path)
    assert len({one.path for one in every}) == len(every), "two files for one path"
    text = "".join(f"{one.sha256}  {one.path}\n" for one in every)
    return (*every, Upload(SUMS, text.encode()))


def summed(text: str) -> tuple[str, ...]:
    """The paths that a SHA256SUMS lists."""
    lines = (line.split(maxsplit=1) for line in text.splitlines())
    return tuple(parts[1].removeprefix("*") for parts in lines if len(parts) == 2)
