"""The kinds of faults: each a module with ``KIND``, ``reject`` and ``inject``."""

from __future__ import annotations

from types import ModuleType

from faults import (
    corruption,
    disk_full,
    kills,
    memory,
    one_of_two,
    read_only,
    stops,
    two_processes,
)

KINDS: tuple[ModuleType, ...] = (
    *(kills, stops, memory, one_of_two),
    *(disk_full, read_only, corruption, two_processes),
)
