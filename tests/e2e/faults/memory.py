"""Memory that runs out in the middle of a stage: in a cgroup, and by a limit of addresses."""

from __future__ import annotations

import contextlib
import os
import random
import resource
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
from faults.frame import Fault, JobDone, Lab, elapsed, ended_with_a_message
from faults.kills import stages, working
from faults.outcome import finished

KIND = "memory exhausted"
V1, V2 = Path("/sys/fs/cgroup/memory"), Path("/sys/fs/cgroup")
SHORT, FULL = 2, 8
ROOM_BYTES = 1 << 20
"""What is left to a process when the limit falls."""


def reject() -> str | None:
    """Limits of addresses are there everywhere on Linux; cgroups are tried for themselves."""
    return None if hasattr(psutil.Process, "rlimit") else "limits of processes need Linux"


def inject(lab: Lab, *, short: bool, seed: int) -> Iterator[Fault]:
    """Take a run's memory away while a job works: half of the times in a cgroup, where it can."""
    chance = random.Random(seed)
    jobs = stages(lab, SHORT if short else FULL, chance, measured=False)
    for index, (_, job) in enumerate(jobs):
        with cgroup() as group:
            if group is not None and index % 2 == 0:
                yield in_a_cgroup(lab, job, group)
            else:
                yield by_addresses(lab, job)


def in_a_cgroup(lab: Lab, job: JobDone, group: Path) -> Fault:
    """Lower a cgroup's limit to what it uses, so that the kernel kills."""
    root = lab.rewound(job)
    before = finished(root)
    run = lab.start(root, cgroup=str(group))
    working(root, job, run)
    began = time.monotonic()
    tighten(group)
    code = run.wait()
    kept = finished(root).items() >= before.items()
    killed = code == -signal.SIGKILL or ended_with_a_message(run, 3)
    return lab.judge(
        KIND,
        f"cgroup full in {job.stage}, '{job.name}'",
        root,
        run,
        clean=killed and kept,
        seconds=elapsed(began),
    )


def by_addresses(lab: Lab, job: JobDone) -> Fault:
    """Let no more addresses be had than a run uses by then: a weaker stand-in for memory."""
    root = lab.rewound(job)
    before = finished(root)
    run = lab.start(root)
    working(root, job, run)
    began = time.monotonic()
    with contextlib.suppress(psutil.NoSuchProcess):
        used = psutil.Process(run.pid).memory_info().vms
        psutil.Process(run.pid).rlimit(resource.RLIMIT_AS, (used + ROOM_BYTES,) * 2)
    code = run.wait()
    kept = finished(root).items() >= before.items()
    died = code in (-signal.SIGABRT, -signal.SIGSEGV)  # native code that cannot say it
    return lab.judge(
        KIND,
        f"addresses used up in {job.stage}, '{job.name}'",
        root,
        run,
        clean=kept and (died or ended_with_a_message(run, 3)),
        seconds=elapsed(began),
        remarks=["it needed no more"] if code == 0 else [],
    )


@contextmanager
def cgroup() -> Iterator[Path | None]:
    """A memory cgroup of one's own; None where none can be made."""
    parent = V1 if V1.is_dir() else V2
    path = parent / f"quantship-faults-{os.getpid()}"
    try:
        path.mkdir()
        usable = (path / _files(path)[0]).exists()
    except OSError:
        yield None
        return
    try:
        yield path if usable else None
    finally:
        with contextlib.suppress(OSError):
            path.rmdir()


def tighten(group: Path) -> None:
    """Set the limit of a cgroup to what it uses now, and no swap."""
    used, limit, swap = _files(group)
    for _ in range(50):
        number = int((group / used).read_text()) + ROOM_BYTES
        try:
            (group / limit).write_text(str(number))
        except OSError:  # it grew meanwhile
            continue
        break
    with contextlib.suppress(OSError):
        (group / swap).write_text("0" if group.parent == V2 else str(number))


def _files(group: Path) -> tuple[str, str, str]:
    if group.parent == V1:
        return "memory.usage_in_bytes", "memory.limit_in_bytes", "memory.memsw.limit_in_bytes"
    return "memory.current", "memory.max", "memory.swap.max"
