"""The processes that run one recipe together, as ``torchrun`` and ``accelerate launch`` start them.

Every one of them runs the same command. They meet over gloo, which waits as long as a stage takes;
training has a group of its own, over NCCL on GPUs.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

Value = TypeVar("Value")

LONGEST_WAIT = timedelta(days=30)
"""While one process works through a stage alone, the others wait."""

_meeting: Any = None
"""Group that waits so long; None: this process is alone."""


def number() -> int:
    """How many processes run this recipe."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def index() -> int:
    """Which of them this is, from 0."""
    return int(os.environ.get("RANK", "0")) if number() > 1 else 0


def is_first() -> bool:
    """Whether this is the process that writes and speaks for all."""
    return index() == 0


@contextmanager
def together() -> Iterator[None]:
    """Connect with the other processes while this runs; alone, do nothing."""
    global _meeting
    if number() == 1:
        yield
        return
    import torch
    from torch import distributed

    if torch.cuda.is_available():  # what calls itself "cuda" from here on is this process's own
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    distributed.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo")
    _meeting = distributed.new_group(backend="gloo", timeout=LONGEST_WAIT)
    try:
        yield
    finally:
        _meeting = None
        distributed.destroy_process_group()


def agreed(value: Value) -> Value:
    """The first process's value, in all of them."""
    return gathered(value if is_first() else None)[0]  # type: ignore[return-value]


def gathered(value: Value) -> list[Value]:
    """Every process's value, in their order, in all of them."""
    if _meeting is None:
        return [value]
    from torch import distributed

    found: list[Any] = [None] * number()
    distributed.all_gather_object(found, value, group=_meeting)
    return found


def meet() -> None:
    """Wait until all processes have come here."""
    gathered(None)
