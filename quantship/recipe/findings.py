"""What a check of a whole recipe finds, before it is known in which line it was written."""

from __future__ import annotations

from dataclasses import dataclass

from quantship.recipe.yaml_source import Key


@dataclass(frozen=True)
class Finding:
    """Something wrong at a key; becomes a Problem once the key's file and line are known.

    Args:
        key: Where it is wrong.
        message: What is wrong.
        remedy: What to do.
        unread: Whether what stands there is read by nobody, which is as it must be where some steps
            of a sweep read it.
    """

    key: Key
    message: str
    remedy: str
    unread: bool = False
