"""Reading local files piece by piece, every piece with its place for error messages."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from quantship.errors import DataError


def text_lines(path: Path) -> Iterator[tuple[str, str]]:
    """Yield ``(path:line, line)`` for every line of a UTF-8 file, line ends kept as they are.

    Only a newline ends a line, so that line numbers are those an editor shows; a byte order mark
    is dropped. Memory holds one line at a time.

    Raises:
        DataError: The file cannot be read, or a line is not UTF-8.
    """
    with _readable(path), path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            origin = f"{path}:{number}"
            yield origin, _decode(line, origin, "utf-8-sig" if number == 1 else "utf-8")


def json_lines(path: Path) -> Iterator[tuple[str, Any]]:
    """Yield ``(path:line, value)`` for every line of a JSON Lines file; blank lines are skipped.

    Raises:
        DataError: The file cannot be read, or a line is not UTF-8 or not JSON.
    """
    for origin, line in text_lines(path):
        if line.strip():
            yield origin, _parse(line, origin)


def json_document(path: Path) -> Any:
    """The value of a file that is one JSON document, held in memory as a whole.

    Raises:
        DataError: The file cannot be read, is not UTF-8 or is not JSON; names the line.
    """
    # Line by line, so that a byte that is not UTF-8 is named by its line too.
    text = "".join(line for _, line in text_lines(path))
    return _parse(text, str(path), whole=True)


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror or error}", str(path)) from error


def _decode(line: bytes, origin: str, encoding: str) -> str:
    try:
        return line.decode(encoding)
    except UnicodeDecodeError as error:
        message = f"not UTF-8: byte 0x{line[error.start]:02x} at position {error.start + 1}"
        raise DataError(message, origin) from error


def _parse(text: str, origin: str, *, whole: bool = False) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        place = f"{origin}:{error.lineno}" if whole else origin
        raise DataError(f"not JSON: {error.msg} at character {error.colno}", place) from error
    except (ValueError, RecursionError) as error:  # endless digits; brackets nested too deep
        raise DataError(f"not JSON that can be read: {error}", origin) from error
