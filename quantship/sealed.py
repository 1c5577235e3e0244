"""JSON that carries a digest of itself: no changed byte of it passes for what was written."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

DIGEST = "seal"
"""Key of the digest, the last one of the object."""


def dumps(values: Mapping[str, Any], *, indent: int | None = None) -> str:
    """An object of JSON values as text, and in it the SHA-256 of all that it says.

    Raises:
        ValueError: There is NaN or infinity in it, which JSON cannot hold.
    """
    assert DIGEST not in values
    written = json.loads(json.dumps(values, allow_nan=False))  # keys become strings
    return json.dumps({**written, DIGEST: _digest(written)}, indent=indent)


def loads(text: bytes) -> dict[str, Any]:
    """What ``dumps`` was given.

    Raises:
        ValueError: This is something else, or is not any more what was written.
    """
    values = json.loads(text)
    if not isinstance(values, dict) or values.pop(DIGEST, None) != _digest(values):
        raise ValueError("this is not what was written")
    return values


def _digest(values: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
