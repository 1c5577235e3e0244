"""Names of layers as places: which block of the model, and which kind of layer in it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import TypeVar

BLOCK = re.compile(r"^(?P<before>.*?)\.(?P<block>\d+)(?:\.(?P<kind>.+))?$")
Value = TypeVar("Value")


def by_kind(layers: Mapping[str, Value]) -> dict[str, dict[int, Value]]:
    """Values by kind of layer and block, kinds in the order in which they first come.

    Layers in no block, as an embedding, are left out.
    """
    found: dict[str, dict[int, Value]] = {}
    for name, value in layers.items():
        match = BLOCK.match(name)
        if match is not None:
            kind = match["kind"] or match["before"]
            found.setdefault(kind, {})[int(match["block"])] = value
    return found


def outside(layers: Iterable[str]) -> list[str]:
    """Layers that are in no block."""
    return [name for name in layers if BLOCK.match(name) is None]


def short(kind: str) -> str:
    """The last part of a kind's name: ``down_proj`` of ``mlp.down_proj``."""
    return kind.rpartition(".")[2]
