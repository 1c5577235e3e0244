"""A comparison of runs on disk."""

from __future__ import annotations

from pathlib import Path

from quantship.comparing import html as page
from quantship.comparing import markdown as text
from quantship.comparing.schema import Comparison
from quantship.errors import UsageError


def write(comparison: Comparison, *, html: Path | None, markdown: Path | None) -> list[Path]:
    """Write the forms that a file is given for.

    Returns:
        The files, in the order in which they were written.

    Raises:
        UsageError: A file cannot be written.
    """
    wanted = [(html, page.render), (markdown, text.render)]
    written = []
    for path, render in wanted:
        if path is None:
            continue
        try:
            path.write_text(render(comparison), encoding="utf-8", newline="\n")
        except OSError as error:
            raise UsageError(f"{path}: cannot be written: {error.strerror}") from error
        written.append(path)
    return written
