"""Records of a file that is one JSON list, or JSON Lines, read without holding the whole of it."""

from __future__ import annotations

import json
from codecs import getincrementaldecoder
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from quantship.data.files import LONGEST_LINE_BYTES, json_lines, readable
from quantship.errors import DataError

_CHUNK = 2**16
_SPACE = " \t\n\r"
_DECODER = json.JSONDecoder()


def json_records(path: Path) -> Iterator[tuple[str, Any]]:
    """Yield ``(path:line, value)`` for every record of a JSON list or of a JSON Lines file.

    A file is a list if its first character is an opening bracket; the line is that in which the
    record begins. Memory holds one record at a time.

    Raises:
        DataError: The file cannot be read, or something in it is not UTF-8, not JSON or too long.
    """
    with readable(path), path.open("rb") as file:
        start = file.read(_CHUNK).removeprefix(b"\xef\xbb\xbf").lstrip()
        if start.startswith(b"["):
            file.seek(0)
            yield from _list(path, file)
            return
    yield from json_lines(path)


def _list(path: Path, file: BinaryIO) -> Iterator[tuple[str, Any]]:
    text = _Window(path, file)
    text.take("[")
    if text.next() == "]":
        text.take("]")
    else:
        while True:
            origin = text.origin
            yield origin, text.value()
            if text.next() == "]":
                text.take("]")
                break
            text.take(",")
            text.next()
    if text.next():
        raise DataError("not JSON: something follows the list", text.origin)


class _Window:
    """The part of a file that is being read, and the line in which it begins."""

    def __init__(self, path: Path, file: BinaryIO) -> None:
        self._path = path
        self._file = file
        self._decode = getincrementaldecoder("utf-8")()
        self._text = ""
        self._place = 0
        self._line = 1
        self._ended = False
        self._first = True
        self.next()

    @property
    def origin(self) -> str:
        return f"{self._path}:{self._line}"

    def next(self) -> str:
        """The next character that is no white space, without taking it; empty at the end."""
        while True:
            while self._place < len(self._text) and self._text[self._place] in _SPACE:
                self._line += self._text[self._place] == "\n"
                self._place += 1
            if self._place < len(self._text):
                return self._text[self._place]
            if not self._read():
                return ""

    def take(self, character: str) -> None:
        found = self.next()
        if found != character:
            what = repr(found) if found else "the end of the file"
            raise DataError(f"not JSON: expecting {character!r}, not {what}", self.origin)
        self._place += 1

    def value(self) -> Any:
        """The value that begins here; reads on until it is whole."""
        while True:
            try:
                found, end = _DECODER.raw_decode(self._text, self._place)
            except json.JSONDecodeError as error:
                # What is broken far from the end of what was read stays so.
                cut = error.msg.startswith("Unterminated string") or error.pos > len(self._text) - 9
                if not (cut and self._more()):
                    line = self._line + self._text.count("\n", self._place, error.pos)
                    column = error.pos - self._text.rfind("\n", 0, error.pos)
                    message = f"not JSON: {error.msg} at character {column}"
                    raise DataError(message, f"{self._path}:{line}") from error
            except (ValueError, RecursionError) as error:  # endless digits; nested too deep
                raise DataError(f"not JSON that can be read: {error}", self.origin) from error
            else:
                if end < len(self._text) or not self._more():  # a number might go on
                    self._line += self._text.count("\n", self._place, end)
                    self._place = end
                    return found

    def _more(self) -> bool:
        """Read as much again as there is, so that a long record is not parsed many times over."""
        held = len(self._text) - self._place
        if held > LONGEST_LINE_BYTES:
            message = f"the record has more than {LONGEST_LINE_BYTES:,} characters"
            raise DataError(message, self.origin)
        return self._read(max(_CHUNK, held))

    def _read(self, size: int = _CHUNK) -> bool:
        """Drop what was taken and read on; whether there was anything."""
        if self._ended:
            return False
        found = b""
        try:
            found = self._file.read(size)
            self._ended = not found
            more = self._decode.decode(found, final=self._ended)
        except UnicodeDecodeError as error:
            # Bytes held back from before are decoded with these, and hold no line end.
            number = self._line + self._text.count("\n", self._place)
            number += error.object.count(b"\n", 0, error.start)
            message = f"not UTF-8: byte 0x{error.object[error.start]:02x}"
            raise DataError(message, f"{self._path}:{number}") from error
        if self._first:
            more = more.removeprefix("\ufeff")
            self._first = False
        self._text = self._text[self._place :] + more
        self._place = 0
        return True
