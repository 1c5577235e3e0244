"""SHA256SUMS: one line a file, as ``sha256sum -c SHA256SUMS`` reads it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from quantship.artifact import digest_file

SUMS = "SHA256SUMS"


def write_sums(directory: Path) -> Path:
    """Write SHA256SUMS of all files below a directory, as the last of them.

    Links to directories, as a run has to its models, are followed; hidden files are left out.

    Returns:
        The file.
    """
    path = directory / SUMS
    lines = [line(digest_file(directory / name), name) for name in sorted(_names(directory))]
    partial = path.with_name(f".{SUMS}.partial")
    partial.write_text("".join(lines), encoding="utf-8", newline="\n")
    partial.replace(path)
    return path


def line(digest: str, name: str) -> str:
    """The line of a file; a name with a line end or a backslash in it is escaped, and marked so."""
    escaped = name.replace("\\", "\\\\").replace("\n", "\\n").replace("\r", "\\r")
    return f"{'' if escaped == name else chr(92)}{digest}  {escaped}\n"


def _names(directory: Path) -> Iterator[str]:
    for folder, folders, files in os.walk(directory, followlinks=True):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in files:
            inside = (Path(folder) / name).relative_to(directory).as_posix()
            if not name.startswith(".") and inside != SUMS:
                yield inside
