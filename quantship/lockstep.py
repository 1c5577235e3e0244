"""Make all jobs of a plan in several processes, which stay in step.

They go from round to round (``dealing``). Before each one the first process looks what is there
already, and verifies it; the others take its word. After each one all of them know what is made.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from quantship import artifact, dealing, hardware, making, processes
from quantship.artifact import Artifact
from quantship.errors import QuantshipError, StageError, UsageError
from quantship.job import Node, Plan
from quantship.making import Event, Making, Notify
from quantship.parallel.share import share
from quantship.recipe.language import FinetuneStep, QatStep, Recipe

SHORT_DELAY_S, LONGEST_DELAY_S = 5.0, 60.0
"""How long a shared file system may take to show what another machine has written; the longer one
where this machine has looked for it before, and may remember that it was not there."""


@dataclass(frozen=True)
class Member:
    """One of the processes.

    Args:
        machine: Name of its machine.
        cores: Physical cores that it may use there.
        threads: Threads that PyTorch computes with in it.
        gpu: Its GPU as that names itself, or None.
    """

    machine: str
    cores: int
    threads: int
    gpu: str | None


def members() -> list[Member]:
    """All processes of this run."""
    import torch

    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    threads = torch.get_num_threads()
    return processes.gathered(Member(socket.gethostname(), hardware.num_threads(), threads, gpu))


def require_shares(recipe: Recipe) -> None:
    """Refuse trainings whose steps cannot be shared between the processes.

    Raises:
        UsageError: With the first such step of the recipe.
    """
    for step in recipe.steps:
        if isinstance(step, FinetuneStep | QatStep):
            try:
                share(step.batch_size, step.gradient_accumulation, processes.number())
            except QuantshipError as error:
                raise UsageError(f"step '{step.name}': {error}") from error


def make_all(
    nodes: Sequence[Node],
    made: dict[str, Artifact],
    root: Path,
    notify: Notify,
    making_of: Callable[[Node], Making],
) -> None:
    """Find or make every job that is not made yet.

    Args:
        nodes: All jobs of the plan.
        made: What is there, models from outside among it; what is found and made is added.
        root: Where artifacts land.
        notify: Told of every job, in the first process.
        making_of: How a job is made whose inputs are there.

    Raises:
        StageError: A job failed. Those that were done beside it are finished and kept.
        QuantshipError: One failed in another process, or that was killed.
        KeyboardInterrupt: This or another process was stopped.
    """
    missing: set[str] = set()
    with processes.told(notify) as tell:
        while jobs := dealing.ready(nodes, made):
            found = _find(jobs, missing, root, notify)
            if not found:
                found = _make(dealing.next_round(jobs), making_of, tell)
            for name, one in found.items():
                made[name] = _seen(one, root)
    in_order = {node.name: made[node.name] for node in nodes}
    made.clear()
    made.update(in_order)


def require_shared(root: Path) -> None:
    """Refuse an artifacts directory that is not the same one for all processes.

    Raises:
        UsageError: A process does not see what the first one has written into it.
    """
    if processes.current() is None:
        return
    token = root / f".seen-{processes.agreed(time.time_ns())}"
    processes.first_does(token.touch)
    try:
        seen = processes.gathered(_appears(token, SHORT_DELAY_S))
    finally:
        if processes.is_first():
            token.unlink(missing_ok=True)

    def refuse() -> None:
        blind = [str(one) for one, sees in enumerate(seen) if not sees]
        if blind:
            raise UsageError(
                f"the artifacts directory {root} of process 0 is not the one of process "
                f"{', '.join(blind)}\n    All must see the same one: on several machines, a "
                "directory of a shared file system; give it with --artifacts."
            )

    processes.in_step(refuse)


def agree_on(make: Callable[[], Plan]) -> Plan:
    """The first process's plan, with the models from outside where this process has them.

    One process of each machine plans before the others, so that each model is downloaded once.

    Args:
        make: Plans, in one process.

    Raises:
        QuantshipError: As ``make`` does, in any of them.
        UsageError: The processes do not read the same: files or libraries differ.
    """
    if processes.current() is None:
        return make()
    leads = processes.index_here() == 0
    early = processes.in_step(lambda: make() if leads else None)
    mine = processes.in_step(lambda: early or make())
    nodes, waiting = processes.agreed((mine.nodes, mine.waiting))

    def compare() -> None:
        wrong = dealing.differing(nodes, mine.nodes)
        if wrong:
            raise UsageError(
                f"process {processes.index()} reads something else than process 0 for "
                f"'{wrong[0]}': the recipe, data, models and versions of libraries must be the "
                "same everywhere"
            )

    processes.in_step(compare)
    return Plan(nodes, mine.outside, waiting)


def _find(
    jobs: Collection[Node], missing: set[str], root: Path, notify: Notify
) -> dict[str, Artifact]:
    """What earlier runs have made; what is not there is added to ``missing``."""

    def look() -> dict[str, Artifact]:
        unknown = [job for job in jobs if job.name not in missing]
        there = {job.name: making.find(job, root, notify) for job in unknown}
        return {name: one for name, one in there.items() if one is not None}

    found = processes.first_does(look)
    missing.update(job.name for job in jobs if job.name not in found)
    return found


def _make(
    round_: dealing.Round, making_of: Callable[[Node], Making], notify: Notify
) -> dict[str, Artifact]:
    job = round_.jobs[0]
    if round_.kind == "joint":
        return {job.name: making.make_jointly(making_of(job), notify)}
    if round_.kind == "first":

        def work() -> Artifact:
            with processes.alone():
                return making.make(making_of(job), notify)

        return {job.name: processes.first_does(work)}
    return _make_dealt(round_.jobs, making_of, notify)


def _make_dealt(
    jobs: Sequence[Node], making_of: Callable[[Node], Making], notify: Notify
) -> dict[str, Artifact]:
    """Make every job in one of the processes; one that fails leaves the rest to the others."""
    index = processes.index()
    mine: dict[str, Artifact] = {}
    failed: list[StageError] = []

    def tell(event: Event) -> None:
        notify(replace(event, process=index))

    for turn in processes.turns(len(jobs)):
        try:
            with processes.alone():
                mine[jobs[turn].name] = making.make(making_of(jobs[turn]), tell)
        except StageError as error:
            failed.append(error)
            break

    def outcome() -> dict[str, Artifact]:
        if failed:
            raise failed[0]
        return mine

    parts = processes.gathered(processes.in_step(outcome))
    return {name: one for part in parts for name, one in part.items()}


def _seen(one: Artifact, root: Path) -> Artifact:
    """What a process has made, as this one sees it.

    Raises:
        QuantshipError: It does not see it.
    """
    path = artifact.directory(root, one.stage, one.fingerprint)
    if not _appears(path / artifact.MANIFEST, LONGEST_DELAY_S):
        raise QuantshipError(
            f"{path} was made by another process, and is not to be seen here after "
            f"{LONGEST_DELAY_S:.0f} s"
        )
    return replace(one, path=path)


def _appears(path: Path, within_s: float) -> bool:
    """Whether a file can be seen, within so many seconds."""
    deadline = time.monotonic() + within_s
    while not path.exists():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.2)
        with suppress(OSError):
            os.listdir(path.parent)  # noqa: PTH208 - makes NFS look again
    return True
