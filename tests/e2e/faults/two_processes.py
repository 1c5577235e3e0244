"""Two runs on one artifacts directory at once."""

from __future__ import annotations

import random
import shutil
import signal
from collections.abc import Iterator

from faults import recipe
from faults.frame import Fault, Lab, ended_with_a_message
from faults.outcome import finished

KIND = "two runs at once"
TRIES = 20
"""Races of the full form."""


def reject() -> str | None:
    """Why this cannot be tried here: nothing is needed for it."""
    return None


def inject(lab: Lab, *, short: bool, seed: int) -> Iterator[Fault]:
    """Let a second run come while a first one works, when it was killed, and at the same moment."""
    generator = random.Random(seed)
    yield _second(lab)
    yield _after_a_kill(lab)
    for number in range(1 if short else TRIES):
        yield _race(lab, generator, number)


def _second(lab: Lab) -> Fault:
    """A run is refused while another one works; what only reads is not, and nothing is harmed."""
    job = lab.reference().jobs[2]
    root = lab.rewound(job)
    shutil.copytree(lab.reference().root / "runs", root / "runs", symlinks=True)
    before = finished(root)
    first = lab.start(root)
    partial = root / "steps" / f"{job.directory}.partial"
    busy = first.until(partial.exists)
    first.send(signal.SIGSTOP)
    second, other = lab.start(root), lab.start(root, which=recipe.MEASURED)
    codes = [second.wait(), other.wait()]
    name = str(root / "runs" / recipe.FAULTS)
    reads = [lab.server.start(("compare", name, name)).wait()]
    first.send(signal.SIGCONT)
    ended = first.wait()
    clean = busy and codes == [2, 2] and reads == [0] and ended == 0
    clean = clean and all(
        ended_with_a_message(run, 2) and f"another run is using {root}" in run.stderr
        for run in (second, other)
    )
    moment = "a second run, and one of another recipe, while one works"
    return lab.judge(KIND, moment, root, second, clean=clean, before=before)


def _after_a_kill(lab: Lab) -> Fault:
    """The lock of a run that got SIGKILL is free at once."""
    job = lab.reference().jobs[2]
    root = lab.rewound(job)
    run = lab.start(root)
    busy = run.until((root / "steps" / f"{job.directory}.partial").exists)
    run.kill()
    clean = busy and run.returncode == -signal.SIGKILL and (root / ".lock").exists()
    return lab.judge(KIND, "the lock of a killed run", root, run, clean=clean)


def _race(lab: Lab, generator: random.Random, number: int) -> Fault:
    """Two runs start in one moment: one ends right, the other with words or after it."""
    job = generator.choice(lab.reference().jobs[-4:])
    root = lab.rewound(job)
    before = finished(root)
    runs = [lab.start(root), lab.start(root)]
    codes = sorted(run.wait() for run in runs)
    loser = next((run for run in runs if run.returncode), runs[0])
    refused = ended_with_a_message(loser, 2) and f"another run is using {root}" in loser.stderr
    both = codes == [0, 0]  # where the second came when the first had ended
    moment = f"two at the same moment, {number + 1}"
    clean = both or (codes == [0, 2] and refused)
    remarks = ["one came after the other"] if both else []
    return lab.judge(KIND, moment, root, loser, clean=clean, before=before, remarks=remarks)
