"""The header of a safetensors file, of which nothing is believed before it is checked."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

from quantship.errors import QuantshipError

METADATA = "__metadata__"
LARGEST = 100_000_000
"""Bytes that the format allows; a length beyond it is no length."""


def read(file: Path) -> tuple[dict[str, Any], int]:
    """What a file says of its tensors and of itself, and where its first tensor's bytes begin.

    Raises:
        QuantshipError: It cannot be read, is no safetensors file, or is cut off.
    """
    try:
        with file.open("rb") as stream:
            start = stream.read(8)
            (length,) = struct.unpack("<Q", start) if len(start) == 8 else (LARGEST + 1,)
            # Never more than there is: memory is taken before it turns out that the file ends.
            text = stream.read(length) if length <= min(LARGEST, file.stat().st_size) else b""
    except OSError as error:
        raise QuantshipError(f"{file} cannot be read: {error.strerror or error}") from error
    try:
        header = json.loads(text)
        entries = {name: one for name, one in header.items() if name != METADATA}
        for entry in entries.values():
            begin, end = entry["data_offsets"]
            numbers = (begin, end, *entry["shape"])
            if not isinstance(entry["dtype"], str) or any(type(one) is not int for one in numbers):
                raise TypeError("a tensor has no type, or no sizes")
            if not 0 <= begin <= end or any(one < 0 for one in entry["shape"]):
                raise ValueError("a tensor has no place")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise QuantshipError(f"{file} is no safetensors file, or its header is cut off") from error
    return header, 8 + length
