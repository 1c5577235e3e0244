"""Artifacts that may be read and not written, or not even read."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

from faults import disk_full, recipe
from faults.disk_full import small_disk
from faults.frame import Fault, Lab, ended_with_a_message
from faults.outcome import finished
from faults.runs import Run

KIND = "read-only"
NOBODY = 65534


def reject() -> str | None:
    """Why this cannot be tried here; None: it can."""
    return disk_full.reject()


def inject(lab: Lab, *, short: bool, seed: int) -> Iterator[Fault]:
    """Take the right to write, for all and for one user, and the right to read a file."""
    yield _read_only_disk(lab)
    yield _anothers(lab)
    yield _unreadable(lab)


def _read_only_disk(lab: Lab) -> Fault:
    """A disk mounted read-only: a run is refused, and whatever only reads works."""
    root = lab.new_root()
    with small_disk(root) as disk:
        _fill(lab, root)
        before = finished(root)
        disk.protect()
        run = lab.start(root)
        clean = run.wait() == 2 and _refuses(run, root, "Read-only file system")
        name = str(root / "runs" / recipe.FAULTS)
        model = str(root / "runs" / recipe.FAULTS / "models" / "qat")
        path = str(recipe.path_of(lab.folder, recipe.FAULTS))
        reads = {
            "run --plan": ("run", path, "--artifacts", str(root), "--plan"),
            "compare": ("compare", name, name),
            "inspect": ("inspect", model),
        }
        failed = [what for what, words in reads.items() if lab.server.start(words).wait() != 0]
        clean = clean and not failed and not run.happened("running")
        disk.protect(False)
        remarks = [f"{what} fails on it" for what in failed]
        moment = "a disk mounted read-only"
        return lab.judge(
            KIND, moment, root, run, clean=clean, before=before, keep=True, remarks=remarks
        )


def _anothers(lab: Lab) -> Fault:
    """A directory of another user."""
    root = lab.new_root()
    _fill(lab, root)
    before = finished(root)
    _give(root, NOBODY)
    run = lab.start(root, powerless=True)
    clean = run.wait() == 2 and _refuses(run, root, "Permission denied")
    _give(root, 0)
    moment = "a directory of another user"
    return lab.judge(KIND, moment, root, run, clean=clean, before=before)


def _unreadable(lab: Lab) -> Fault:
    """A file that this user may not read: neither reused nor made again, but told."""
    root = lab.new_root()
    _fill(lab, root)
    (job,) = (job for job in lab.reference().jobs if job.stage == "finetune")
    weights = root / "steps" / job.directory / "model.safetensors"
    before = finished(root)
    _give(weights, NOBODY)
    weights.chmod(0o600)
    run = lab.start(root, powerless=True)
    clean = run.wait() == 2 and ended_with_a_message(run, 2)
    clean = clean and f"{job.directory}/{weights.name} cannot be read: Perm" in run.stderr
    clean = clean and job.name not in run.happened("running")
    _give(weights, 0)
    moment = "a file that may not be read"
    return lab.judge(KIND, moment, root, run, clean=clean, before=before)


def _fill(lab: Lab, root: Path) -> None:
    """Copy a finished root; a mounted one is there."""
    made = lab.rewound(None)
    shutil.copytree(made, root, symlinks=True, dirs_exist_ok=True)
    shutil.rmtree(made)


def _give(root: Path, user: int) -> None:
    """Make all of it a user's; no time of a last change is touched."""
    for path in (root, *root.rglob("*")):
        if not path.is_symlink():
            shutil.chown(path, user)


def _refuses(run: Run, root: Path, reason: str) -> bool:
    said = run.stderr
    return ended_with_a_message(run, 2) and f"kept in {root}: " in said and reason in said
