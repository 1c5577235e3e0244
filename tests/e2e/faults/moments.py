"""Moments in the life of a run's files, at which it can be killed: before one is opened to be
written, renamed, removed.

What native code writes is not among them; random moments of time hit that.
"""

from __future__ import annotations

import os
import re
import signal
import sys
from pathlib import Path
from typing import Any

RANDOM = re.compile(r"(?<=data)\.[a-z0-9_]{8}(?=/|$)")
"""Part of a name that is another one in every run."""
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
EVENTS = {
    **dict.fromkeys(("os.rename", "os.link", "os.symlink"), 2),
    **dict.fromkeys(("os.mkdir", "os.remove", "os.rmdir", "os.truncate"), 1),
}
"""Python's audit events, and how many paths each names first."""


def arm(root: str, log: str | None = None, die_at: str | None = None, nth: int = 1) -> None:
    """Watch this process from now on.

    Args:
        root: Artifacts' directory; only what happens in it counts.
        log: File for a line for each moment.
        die_at: Get SIGKILL right before this moment, a line of such a log.
        nth: When it happens for the so-manieth time.
    """
    inside = os.path.join(os.path.realpath(root), "")  # noqa: PTH118
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND) if log else None
    seen = 0

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal seen
        moment = _moment(event, arguments, inside)
        if moment is None:
            return
        if file is not None:
            os.write(file, f"{moment}\n".encode())
        if moment == die_at:
            seen += 1
            if seen == nth:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)


def read(log: Path) -> list[tuple[str, int]]:
    """Moments of a log, and the so-manieth time of each."""
    found: list[tuple[str, int]] = []
    counts: dict[str, int] = {}
    for moment in log.read_text().splitlines():
        counts[moment] = counts.get(moment, 0) + 1
        found.append((moment, counts[moment]))
    return found


def _moment(event: str, arguments: tuple[Any, ...], inside: str) -> str | None:
    if event == "open":
        path, _, flags = arguments
        if not isinstance(flags, int) or not flags & WRITES:
            return None
        paths: tuple[Any, ...] = (path,)
    elif event in EVENTS:
        paths = arguments[: EVENTS[event]]
    else:
        return None
    if not all(isinstance(path, str | bytes | os.PathLike) for path in paths):
        return None
    within = ""
    if event in ("os.remove", "os.rmdir") and arguments[1] >= 0:  # of a tree that goes
        within = str(Path(f"/proc/self/fd/{arguments[1]}").readlink())
    joined = [os.path.join(within, os.fsdecode(path)) for path in paths]  # noqa: PTH118
    names = [os.path.abspath(path) for path in joined]  # noqa: PTH100
    if not names[-1].startswith(inside):
        return None
    return " ".join(
        [event, *(RANDOM.sub(".XXXXXXXX", name.removeprefix(inside)) for name in names)]
    )
