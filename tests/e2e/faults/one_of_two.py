"""One of two processes that run a recipe together is killed: the other one ends too, with words."""

from __future__ import annotations

import random
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

from faults.frame import Fault, JobDone, Lab, elapsed, ended_with_a_message
from faults.outcome import finished
from faults.runs import Run

KIND = "one of two killed"
TRAINING = ("finetune", "qat")
"""Stages that two processes do together; sums of theirs come in another order than one's."""
SHORT, FULL = 1, 8
LONGEST_S = 60.0


def reject() -> str | None:
    """Processes meet over gloo, which is there where PyTorch is."""
    return None


def inject(lab: Lab, *, short: bool, seed: int) -> Iterator[Fault]:
    """Kill either of two, at random times of all that is dealt out among them."""
    chance = random.Random(seed)
    jobs = lab.reference().jobs
    trained = max(index for index, job in enumerate(jobs) if job.stage in TRAINING)
    for index in range(SHORT if short else FULL):
        yield _killed(lab, chance.choice(jobs[trained + 1 :]), index % 2, chance)


def _killed(lab: Lab, job: JobDone, victim: int, chance: random.Random) -> Fault:
    root = lab.rewound(job)
    before = finished(root)
    pair = together(lab, root)
    partial = root / "steps" / f"{job.directory}.partial"
    final = root / "steps" / job.directory
    pair[victim].until(lambda: partial.exists() or final.exists())
    time.sleep(chance.random() * job.seconds)
    pair[victim].kill()
    began = time.monotonic()
    survivor = pair[1 - victim]
    survivor.wait(LONGEST_S)
    kept = finished(root).items() >= before.items()
    killed = pair[victim].returncode == -signal.SIGKILL
    return lab.judge(
        KIND,
        f"process {victim} in {job.stage}, '{job.name}'",
        root,
        survivor,
        clean=killed and kept and ended_with_a_message(survivor, 3, 137),
        seconds=elapsed(began),
    )


def together(lab: Lab, root: Path) -> tuple[Run, Run]:
    """Two processes as ``torchrun`` starts them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    shared = {
        "WORLD_SIZE": "2",
        "LOCAL_WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": port,
    }
    first, second = (
        lab.start(root, environment={**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)})
        for rank in (0, 1)
    )
    return first, second
