"""The connection between the processes of a run: a group to meet in, and a store for short notes.

The group belongs to the meetings; training has a group of its own, over NCCL on GPUs. The store is
that of the launcher, which outlives any process, or of the first process.
"""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from typing import Any

import psutil

from quantship.processes.identity import number


@dataclass(frozen=True)
class Place:
    """Where a process runs.

    Args:
        machine: What tells machines, and containers on one machine, apart.
        pid: Its number there.
        began: When it began, in seconds, since numbers are used again.
    """

    machine: str
    pid: int
    began: float


@dataclass
class Link:
    """What connects this process with the others.

    Args:
        store: Keys and values that all of them see.
        group: Group that waits as long as it takes.
        places: Where each of them runs, once they have met.
        rounds: How often work has been dealt out.
    """

    store: Any
    group: Any
    places: tuple[Place, ...] = ()
    rounds: int = 0


_link: Link | None = None


def current() -> Link | None:
    """The connection; None: this process is alone, or counts as such."""
    return _link if _link is not None and number() > 1 else None


def established() -> Link | None:
    """The connection, also while this process counts as alone."""
    return _link


def put(link: Link | None) -> None:
    """From now on this is the connection."""
    global _link
    _link = link


def here() -> Place:
    """Where this process runs."""
    try:
        space = os.readlink("/proc/self/ns/pid")  # noqa: PTH115 - it leads to no path
    except OSError:
        space = ""
    return Place(f"{socket.gethostname()} {space}", os.getpid(), psutil.Process().create_time())


def is_gone(place: Place) -> bool:
    """Whether a process on this machine has ended; one elsewhere is not known to have."""
    if place.machine != here().machine:
        return False
    try:
        found = psutil.Process(place.pid)
        return bool(found.create_time() != place.began or found.status() == psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return True
