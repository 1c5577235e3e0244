"""Memory that is exhausted: how the libraries say so, and what to tell the user."""

from __future__ import annotations

import errno

from quantship.errors import chain

NO_MEMORY = (
    *("can't allocate memory", "not enough memory", "cannot allocate memory", "bad_alloc"),
    *("failed to allocate memory", "out of memory", "bad allocation"),
)
"""What errors say of it that are no MemoryError, in small letters."""


def complaint(error: BaseException) -> str | None:
    """What to tell of a failure for which memory was missing; None: it was something else."""
    if not any(map(_tells, chain(error))):
        return None
    said = str(error).strip().splitlines()[:1] or [type(error).__name__]
    return (
        f"memory is exhausted: {said[0]}\n"
        "    Give it more, or less to hold at once: a smaller batch_size, for which a step's\n"
        "    gradient_accumulation can make up. The same command then goes on."
    )


def killed(status: int) -> str | None:
    """What to tell of a process that ended with an exit status of its own; None: nothing."""
    if status != -9:
        return None
    return "the system killed it, as it does when memory is exhausted"


def _tells(error: BaseException) -> bool:
    if isinstance(error, MemoryError) or getattr(error, "errno", None) == errno.ENOMEM:
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError | OSError) and any(one in text for one in NO_MEMORY)
