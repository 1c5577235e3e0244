"""How many processes run a recipe, and which one this is, as a launcher's environment says."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from quantship.errors import UsageError

THEIRS = ("RANK", "LOCAL_RANK", "GROUP_", "ROLE_", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_")
"""How variables begin that tell libraries and child processes of the other processes."""
SHARDING = ("ACCELERATE_USE_FSDP", "FSDP_")
"""Those that have a model loaded in pieces; ``accelerate launch --use_fsdp`` sets them."""


def number() -> int:
    """How many processes run this recipe."""
    return _read("WORLD_SIZE", 1)


def index() -> int:
    """Which of them this is, from 0."""
    return _read("RANK", 0) if number() > 1 else 0


def index_here() -> int:
    """Which of those on this machine this is, from 0."""
    return _read("LOCAL_RANK", 0) if number() > 1 else 0


def is_first() -> bool:
    """Whether this is the process that writes and speaks for all."""
    return index() == 0


@contextmanager
def alone() -> Iterator[None]:
    """While this runs, this process counts as the only one, for libraries and children as well.

    For work that one process does while the others do something else: some libraries load a part
    of a model, or hand back nothing, where the environment speaks of several processes.
    """
    hidden = {name: value for name, value in os.environ.items() if _tells(name)}
    for name in hidden:
        del os.environ[name]
    try:
        yield
    finally:
        os.environ.update(hidden)


def require_launched() -> None:
    """Refuse to run once what was to run several times.

    Raises:
        UsageError: A launcher was asked for several processes and has not started them, or the
            environment is no launcher's.
    """
    environment = os.environ
    for name in ("WORLD_SIZE", "RANK", "LOCAL_RANK"):
        if not environment.get(name, "0").isdecimal():
            raise UsageError(f"{name} is '{environment[name]}' in the environment, and no number")
    several = {"MASTER_ADDR", "ACCELERATE_USE_CPU"} <= environment.keys()
    if several and environment["ACCELERATE_USE_CPU"] == "True" and "WORLD_SIZE" not in environment:
        raise UsageError(
            "accelerate launch --cpu starts one process only, whatever --num_processes says\n"
            "    Use torchrun --nproc-per-node N -m quantship run RECIPE, or accelerate launch "
            "--multi_gpu, which needs no GPU, in place of --cpu."
        )
    if number() > 1 and "MASTER_ADDR" not in environment:
        raise UsageError(
            f"WORLD_SIZE is {number()} and MASTER_ADDR is not set: no launcher has started this\n"
            "    Use torchrun --nproc-per-node N -m quantship run RECIPE, or unset WORLD_SIZE."
        )


def _read(name: str, default: int) -> int:
    text = os.environ.get(name, "")
    return int(text) if text.isdecimal() else default  # together() refuses what is no number


def _tells(name: str) -> bool:
    return name.startswith((*THEIRS, *SHARDING))
