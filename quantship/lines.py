"""Work that is kept line by line, so that a killed run goes on after the last one.

    8c1f2c7f0d5e9a31 {"index": 0, "text": "forty-two"}

A line is a value as JSON, after the beginning of its SHA-256: what a kill or a full disk has torn,
or a disk has changed, is seen and made again.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any


def append(values: Iterable[Any], path: Path) -> None:
    """Keep more JSON values in a file, which is made with its directory where there is none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    texts = [json.dumps(value).encode() for value in values]
    with path.open("ab") as file:
        file.writelines(_digest(text) + b" " + text + b"\n" for text in texts)


def read(path: Path) -> list[Any]:
    """The values that ``append`` left in a file, in order.

    A line that is not whole is cut off, and with it those after it.
    """
    if not path.is_file():
        return []
    whole = path.read_bytes()
    values, end = [], 0
    for line in whole.splitlines(keepends=True):
        digest, _, text = line.partition(b" ")
        if not line.endswith(b"\n") or digest != _digest(text[:-1]):
            os.truncate(path, end)
            break
        values.append(json.loads(text))
        end += len(line)
    return values


def _digest(text: bytes) -> bytes:
    return hashlib.sha256(text).hexdigest()[:16].encode()
