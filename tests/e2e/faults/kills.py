"""SIGKILL at random moments: in the middle of every stage, and between any two changes of files."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from faults.frame import Fault, JobDone, Lab, elapsed
from faults.outcome import finished
from faults.recipe import FAULTS, MEASURED
from faults.runs import Run

KIND = "SIGKILL"
FILE_MOMENTS: tuple[tuple[str, Callable[[str], bool]], ...] = (
    ("finishing", lambda line: "/artifact.json" in line and "open" in line),
    ("renaming", lambda line: line.startswith("os.rename") and ".partial" in line),
    ("resuming", lambda line: ".resume/" in line),
    ("tidying", lambda line: line.startswith(("os.rmdir", "os.remove")) and ".resume" in line),
    ("reporting", lambda line: " runs/" in line),
    ("anything", lambda line: True),
)
"""Kinds of changes of files, of which each gets its share of the kills."""
SHORT, FULL = (2, 5), (14, 16)
"""Kills in the middle of stages, and at changes of files."""
MISSES = 4
"""Times that a kill may come when its job has finished already."""


def reject() -> str | None:
    """Processes can be killed everywhere."""
    return None


def inject(lab: Lab, *, short: bool, seed: int) -> Iterator[Fault]:
    """Kill, so many times; after each, what was finished is there and a further run ends right."""
    chance = random.Random(seed)
    num_stages, num_files = SHORT if short else FULL
    for which, job in stages(lab, num_stages, chance, measured=not short):
        yield in_a_stage(lab, which, job, chance)
    yield from between_changes(lab, num_files, chance)


def stages(
    lab: Lab, number: int, chance: random.Random, *, measured: bool
) -> Iterator[tuple[str, JobDone]]:
    """So many jobs, each of another stage until all stages had their turn.

    Args:
        lab: Where the undisturbed runs are.
        number: How many.
        chance: Chooses among the jobs of a stage, and which stages come where not all can.
        measured: Begin with the benchmark.
    """
    if measured:
        (benchmark,) = (job for job in lab.reference(MEASURED).jobs if job.stage == "benchmark")
        yield MEASURED, benchmark
        number -= 1
    by_stage: dict[str, list[JobDone]] = {}
    for job in lab.reference().jobs:
        by_stage.setdefault(job.stage, []).append(job)
    turns: list[str] = []
    while len(turns) < number:
        turns += chance.sample(list(by_stage), len(by_stage))
    for stage in turns[:number]:
        yield FAULTS, chance.choice(by_stage[stage])


def in_a_stage(lab: Lab, which: str, job: JobDone, chance: random.Random) -> Fault:
    """Kill a run at some time while a job works."""
    fraction = chance.random()
    for miss in range(MISSES):
        root = lab.rewound(job, which=which)
        before = finished(root)
        run = lab.start(root, which=which)
        working(root, job, run)
        time.sleep(fraction * job.seconds / 2**miss)
        run.kill()
        if not (root / "steps" / job.directory).exists():
            break
    moment = f"{job.stage}: {fraction:.0%} into '{job.name}'"
    return _judged(lab, moment, root, run, which, before)


def working(root: Path, job: JobDone, run: Run) -> None:
    """Wait until a job has begun."""
    partial = root / "steps" / f"{job.directory}.partial"
    final = root / "steps" / job.directory
    if not run.until(lambda: partial.exists() or final.exists()):
        raise RuntimeError(f"'{job.name}' has not begun: {run.stdout}{run.stderr}")


def between_changes(lab: Lab, number: int, chance: random.Random) -> Iterator[Fault]:
    """Kill runs right before changes of files, as many of each kind."""
    recorded = lab.reference().moments
    chosen: list[tuple[str, str, int]] = []
    for name, belongs in (FILE_MOMENTS[turn % len(FILE_MOMENTS)] for turn in range(number)):
        those = [moment for moment in recorded if belongs(moment[0])]
        chosen.append((name, *chance.choice(those)))
    for name, moment, nth in chosen:
        root = lab.rewound(first_of(lab.reference().jobs, moment))
        before = finished(root)
        watched = {"root": str(root), "die_at": moment, "nth": nth}
        run = lab.start(root, watched=watched)
        run.wait()
        yield _judged(lab, f"{name}: {moment} ({nth})", root, run, FAULTS, before)


def first_of(jobs: Sequence[JobDone], moment: str) -> JobDone:
    """The job that a moment belongs to; those of the report and of no job: the last one."""
    return next((job for job in jobs if job.directory in moment), jobs[-1])


def _judged(
    lab: Lab, moment: str, root: Path, run: Run, which: str, before: dict[str, dict]
) -> Fault:
    began = time.monotonic()
    left = finished(root)
    gone = [name for name, stamp in before.items() if left.get(name) != stamp]
    remarks = [f"gone with the kill: {name}" for name in gone]
    killed = run.returncode == -signal.SIGKILL
    return lab.judge(
        KIND,
        moment,
        root,
        run,
        clean=killed and not gone,
        seconds=elapsed(began),
        which=which,
        remarks=remarks,
    )
