"""Reading local files piece by piece, every piece with its place for error messages."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from quantship.errors import DataError

LONGEST_LINE_BYTES = 2**25
"""A record of ten million characters fits; a file without line ends is not read into memory."""
LARGEST_DOCUMENT_BYTES = 2**29


def text_lines(path: Path) -> Iterator[tuple[str, str]]:
    """Yield ``(path:line, line)`` for every line of a UTF-8 file, line ends kept as they are.

    Only a newline ends a line, so that line numbers are those an editor shows; a byte order mark
    is dropped. Memory holds one line at a time.

    Raises:
        DataError: The file cannot be read, or a line is not UTF-8 or too long to be held.
    """
    number = 1
    with readable(path), path.open("rb") as file:
        while line := file.readline(LONGEST_LINE_BYTES + 1):
            origin = f"{path}:{number}"
            if len(line) > LONGEST_LINE_BYTES:
                raise DataError(f"the line has more than {LONGEST_LINE_BYTES:,} bytes", origin)
            yield origin, decoded(line, origin, "utf-8-sig" if number == 1 else "utf-8")
            number += 1


def json_lines(path: Path) -> Iterator[tuple[str, Any]]:
    """Yield ``(path:line, value)`` for every line of a JSON Lines file; blank lines are skipped.

    Raises:
        DataError: The file cannot be read, or a line is not UTF-8, not JSON or too long.
    """
    for origin, line in text_lines(path):
        if line.strip():
            yield origin, _parse(line, origin)


def json_document(path: Path) -> Any:
    """The value of a file that is one JSON document, held in memory as a whole.

    Raises:
        DataError: The file cannot be read, is not UTF-8, not JSON or too large; names the line.
    """
    with readable(path):
        if path.stat().st_size > LARGEST_DOCUMENT_BYTES:
            message = f"the document has more than {LARGEST_DOCUMENT_BYTES:,} bytes"
            raise DataError(message, str(path))
        content = path.read_bytes()
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        number = content.count(b"\n", 0, error.start) + 1
        start = content.rfind(b"\n", 0, error.start) + 1
        line = content[start : error.start + 4]
        return decoded(line, f"{path}:{number}", "utf-8")  # which says where in the line
    del content
    return _parse(text, str(path), whole=True)


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Turn whatever the file system refuses into a DataError that names the file."""
    try:
        yield
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror or error}", str(path)) from error


def decoded(line: bytes, origin: str, encoding: str) -> str:
    """A line as text.

    Raises:
        DataError: It is not UTF-8; says which byte is wrong.
    """
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
