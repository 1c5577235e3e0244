"""What the steps of a sweep are called: the step's own name, and what tells each from the others.

``ptq`` over ``algorithm: [rtn, gptq]`` and ``calibration: {seed: [0, 1]}`` is ``ptq-rtn-seed-0``
and so on: words stand for themselves, other values after the last part of their key.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

from quantship.recipe.yaml_source import Key, Value, plain

LONGEST = 40
"""Letters of one part; what needs more is called by its place in the list."""


def parts(key: Key, values: Sequence[Value]) -> list[str]:
    """A short part of a name for each value of a list, each another.

    Args:
        key: Of the list in its step.
        values: The values; two that are the same are told apart by their places, from 1.
    """
    found: list[str] = []
    for place, value in enumerate(values, 1):
        content = plain(value)
        part = _slug("-".join(_words(key, content)))
        if not part or len(part) > LONGEST:
            part = f"{_slug(_label(key, content))}-{place}"
        found.append(_unlike(part, place, found))
    return found


def names(base: str, combinations: Sequence[Sequence[str]]) -> list[str]:
    """A name for each combination of parts, each another.

    Args:
        base: Name of the step as it was written.
        combinations: Of the parts, one for each list.
    """
    found: list[str] = []
    taken: set[str] = set()
    for place, combination in enumerate(combinations, 1):
        name = _unlike("-".join((base, *combination)), place, taken)
        taken.add(name)
        found.append(name)
    return found


def _words(key: Key, content: Any) -> Iterator[str]:
    """What tells a value from the others of its list, in words to be joined."""
    if isinstance(content, dict):
        yield _label(key, content)
        for name, item in content.items():
            if name != "kind":
                yield from _words((name,), item) if isinstance(item, dict) else (name, _text(item))
        return
    if not isinstance(content, str) or len(key) > 1:
        yield str(key[-1])
    yield _text(content)


def _label(key: Key, content: Any) -> str:
    kind = content.get("kind") if isinstance(content, dict) else None
    return kind if isinstance(kind, str) else str(key[-1])


def _text(content: Any) -> str:
    """A scalar, a number without what a name cannot hold: ``0_01``, ``5e-5``."""
    if content is None or isinstance(content, bool):
        return {None: "null", True: "true", False: "false"}[content]
    if isinstance(content, float):
        return re.sub(r"e([-+]?)0*", r"e\1", repr(content)).replace("e+", "e").replace(".", "_")
    return str(content)


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9_]+", "-", text.lower()).strip("-_")


def _unlike(name: str, place: int, others: Sequence[str] | set[str]) -> str:
    """The name, with its place behind it where another is called so."""
    while name in others:
        name = f"{name}-{place}"
    return name
