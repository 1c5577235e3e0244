"""Ctrl-C and SIGTERM in every stage: how long it takes, what is said, and whether all goes on."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Iterator

import psutil
from faults.frame import Fault, JobDone, Lab, elapsed
from faults.kills import stages, working
from faults.outcome import finished

from quantship import stopping

KIND = "SIGTERM, Ctrl-C"
LONGEST_S = 10.0
"""Time until the end; steps of this recipe take a few milliseconds."""
NUM_STAGES = 14
SHORT = 4
WITH_CHILDREN = ("benchmark", "task")
"""Stages that work in processes of their own."""


def reject() -> str | None:
    """Processes can be stopped everywhere."""
    return None


def inject(lab: Lab, *, short: bool, seed: int) -> Iterator[Fault]:
    """Stop runs in stages, in full each one by either signal."""
    chance = random.Random(seed)
    chosen = list(stages(lab, SHORT if short else NUM_STAGES, chance, measured=True))
    for index, (which, job) in enumerate(chosen):
        both = (signal.SIGTERM, signal.SIGINT)
        for number in (both[index % 2],) if short else both:
            yield stopped(lab, which, job, number, chance)


def stopped(
    lab: Lab, which: str, job: JobDone, number: signal.Signals, chance: random.Random
) -> Fault:
    """Stop a run while a job works, SIGINT as a terminal sends it: to children too."""
    root = lab.rewound(job, which=which)
    before = finished(root)
    run = lab.start(root, which=which)
    working(root, job, run)
    if job.stage in WITH_CHILDREN:
        run.until(lambda: bool(run.children()), timeout_s=60)
    time.sleep(chance.random() * job.seconds / 2)
    children = run.children()
    began = time.monotonic()
    if number == signal.SIGINT:
        os.killpg(run.pid, number)
    else:
        run.send(number)
    code = run.wait()
    seconds = elapsed(began)
    left = _still_there(children)
    said = run.stderr == f"{stopping.MESSAGE}\n"
    kept = finished(root).items() >= before.items()
    remarks = [f"process {child.pid} is left" for child in left]
    remarks += [] if said else [f"said: {run.stderr[-500:]!r}"]
    remarks += [] if kept else ["something finished is gone"]
    return lab.judge(
        KIND,
        f"{number.name} in {job.stage}, '{job.name}'",
        root,
        run,
        clean=code == stopping.EXIT_CODE and said and not left and kept and seconds < LONGEST_S,
        seconds=seconds,
        which=which,
        remarks=remarks,
    )


def _still_there(children: list[psutil.Process]) -> list[psutil.Process]:
    _, alive = psutil.wait_procs(children, timeout=2)
    return [child for child in alive if child.is_running() and not _is_zombie(child)]


def _is_zombie(child: psutil.Process) -> bool:
    try:
        return child.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
