"""The machine and the software that this process runs on."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Iterator
from functools import cache
from hashlib import sha256
from importlib import metadata
from pathlib import Path

from quantship import hardware
from quantship.provenance.lock_schema import Checkout, Environment

PACKAGE = "quantship"
FOLDER = Path(__file__).parents[1]
"""Where the package lies."""
NO_RESULTS = ("bench", "dev")
"""Extras of quantship whose packages make no model and no number."""
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


def current() -> Environment:
    """The environment of this process."""
    import torch

    set_here = {name: os.environ[name] for name in THREAD_VARIABLES if name in os.environ}
    return Environment(
        quantship=hardware.versions()[PACKAGE],
        checkout=checkout(FOLDER),
        python=platform.python_version(),
        os=platform.platform(),
        cpu_model=hardware.cpu_model(),
        instruction_sets=list(hardware.instruction_sets()),
        num_cpus=hardware.num_cpus(),
        memory_bytes=hardware.memory_bytes(),
        gpu=hardware.gpu_name(),
        threads={"torch": str(torch.get_num_threads()), **set_here},
        packages=dict(packages()),
    )


def key(environment: Environment) -> str:
    """A short name for an environment, from what is in it."""
    return sha256(environment.model_dump_json().encode()).hexdigest()[:12]


@cache
def checkout(folder: Path) -> Checkout | None:
    """The git checkout that a package's folder belongs to; None where it is installed."""
    if _git(folder, "ls-files", "--error-unmatch", "__init__.py") is None:
        return None  # some other project's checkout may be around it
    commit = _git(folder, "rev-parse", "HEAD")
    changes = _git(folder, "status", "--porcelain", "--", ".")
    if commit is None or changes is None:
        return None
    return Checkout(commit=commit.strip(), dirty=bool(changes.strip()))


@cache
def packages() -> tuple[tuple[str, str], ...]:
    """Name and version of every installed package that quantship needs, and those need, sorted."""
    from packaging.utils import canonicalize_name

    extras = metadata.metadata(PACKAGE).get_all("Provides-Extra") or []
    found: dict[str, str] = {}
    waiting = [(PACKAGE, extra) for extra in ("", *extras) if extra not in NO_RESULTS]
    waiting += [(name, "") for name in hardware.LIBRARIES]
    seen: set[tuple[str, str]] = set()
    while waiting:
        name, extra = waiting.pop()
        if (name, extra) in seen:
            continue
        seen.add((name, extra))
        try:
            distribution = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            continue
        found[canonicalize_name(distribution.metadata["Name"])] = distribution.version
        waiting += _needed(distribution, extra)
    return tuple(sorted(found.items()))


def _needed(distribution: metadata.Distribution, extra: str) -> Iterator[tuple[str, str]]:
    """What a package needs with one of its extras, and the extras of each."""
    from packaging.requirements import InvalidRequirement, Requirement
    from packaging.utils import canonicalize_name

    for text in distribution.requires or ():
        try:
            requirement = Requirement(text)
        except InvalidRequirement:  # of a package from before there was a rule
            continue
        if requirement.marker is None or requirement.marker.evaluate({"extra": extra}):
            name = canonicalize_name(requirement.name)
            yield name, ""
            yield from ((name, wanted) for wanted in requirement.extras)


def _git(folder: Path, *arguments: str) -> str | None:
    """What git answers; None where there is no git, or it fails."""
    command = ["git", "--no-optional-locks", "-C", str(folder), *arguments]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=30, encoding="utf-8"
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None
