"""SHA256SUMS: one line a file, as ``sha256sum -c SHA256SUMS`` reads it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from quantship.artifact import digest_file
from quantship.reporting.write import replace

SUMS = "SHA256SUMS"


def write_sums(directory: Path, known: Mapping[str, str] | None = None) -> Path:
    """Write SHA256SUMS of all files below a directory, as the last of them.

    Links to directories, as a run has to its models, are followed; hidden files are left out, and
    what is no file: to read a pipe would never end.

    Args:
        directory: The directory.
        known: Digests by path in it of files that were read a moment ago, and need not be again.

    Returns:
        The file.
    """
    path = directory / SUMS
    known = known or {}
    lines = [
        line(known.get(name) or digest_file(directory / name), name)
        for name in sorted(_names(directory))
    ]
    replace(path, "".join(lines))
    return path


def line(digest: str, name: str) -> str:
    """The line of a file; a name with a line end or a backslash in it is escaped, and marked so."""
    escaped = name.replace("\\", "\\\\").replace("\n", "\\n").replace("\r", "\\r")
    return f"{'' if escaped == name else chr(92)}{digest}  {escaped}\n"


def _names(directory: Path) -> Iterator[str]:
    for folder, folders, files in os.walk(directory, followlinks=True):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in files:
            path = Path(folder) / name
            inside = path.relative_to(directory).as_posix()
            if not name.startswith(".") and inside != SUMS and path.is_file():
                yield inside
