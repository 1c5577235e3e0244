"""A disk that fills up while a run writes to it, at one size after the other."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from faults.frame import Fault, JobDone, Lab, elapsed, ended_with_a_message
from faults.outcome import finished

KIND = "disk full"
PAGE = 4096
ROOMY = 1 << 26
SHARES = (0.15, 0.5, 0.9)
"""Of what a job writes, how much there is room for."""


def reject() -> str | None:
    """Why a small disk cannot be had here; None: it can."""
    if os.name != "posix" or os.geteuid() != 0 or shutil.which("mount") is None:
        return "mounting a tmpfs needs root"
    done = subprocess.run(
        ["unshare", "--mount", "mount", "-t", "tmpfs", "none", "/mnt"], check=False
    )
    return None if done.returncode == 0 else "this machine mounts no tmpfs"


def inject(lab: Lab, *, short: bool, seed: int) -> Iterator[Fault]:
    """Fill the disk in the middle of jobs of every stage, and while the report is written."""
    generator = random.Random(seed)
    jobs = [job for job in lab.reference().jobs if job.stage not in ("evaluate", "online")]
    chosen: list[JobDone | None] = [*jobs, None]
    if short:
        training = [job for job in jobs if job.stage in ("finetune", "qat")]
        others = [job for job in jobs if job.stage not in ("finetune", "qat")]
        chosen = [generator.choice(training), generator.choice(others), None]
    for job in chosen:
        for share in generator.sample(SHARES, 1 if short else 2):
            yield _fill(lab, job, share)


def _fill(lab: Lab, job: JobDone | None, share: float) -> Fault:
    """Run a job, or for None the report, where there is room for a part of what it writes."""
    root = lab.new_root()
    with small_disk(root) as disk:
        before = lab.rewound(job)
        if job is None:
            shutil.rmtree(before / "runs")
            needed = _pages(lab.reference().root / "runs")
        else:
            needed = _pages(lab.reference().root / "steps" / job.directory)
        for folder in before.iterdir():
            shutil.copytree(folder, root / folder.name, symlinks=True)
        shutil.rmtree(before)
        disk.resize(_used(root) + int(needed * share))
        began = time.monotonic()
        run = lab.start(root)
        run.wait()
        seconds = elapsed(began)
        said = run.stderr
        tells = "is full: " in said and "Make room" in said and str(root) in said
        whole = finished(root)
        failed = run.happened("failed")
        disk.resize(ROOMY)
        where = "report" if job is None else job.stage
        return lab.judge(
            KIND,
            f"{where}, room for {share:.0%}",
            root,
            run,
            clean=ended_with_a_message(run, 3) and tells,
            seconds=seconds,
            before=whole,
            keep=True,
            remarks=[f"failed in {', '.join(failed) or 'the report'}"],
        )


class SmallDisk:
    """A mounted tmpfs.

    Args:
        path: Where.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def resize(self, size_bytes: int) -> None:
        """Give it another size."""
        self._remount(f"size={size_bytes}")

    def protect(self, on: bool = True) -> None:
        """Let nobody write to it, or everybody again."""
        self._remount("ro" if on else "rw")

    def _remount(self, options: str) -> None:
        subprocess.run(["mount", "-o", f"remount,{options}", str(self._path)], check=True)


@contextmanager
def small_disk(path: Path, size_bytes: int = ROOMY) -> Iterator[SmallDisk]:
    """A tmpfs at a path, for a while."""
    path.mkdir(parents=True)
    options = ["-t", "tmpfs", "-o", f"size={size_bytes}", "none"]
    subprocess.run(["mount", *options, str(path)], check=True)
    try:
        yield SmallDisk(path)
    finally:
        subprocess.run(["umount", "--lazy", str(path)], check=True)
        path.rmdir()


def _used(path: Path) -> int:
    space = os.statvfs(path)
    return (space.f_blocks - space.f_bfree) * space.f_frsize


def _pages(path: Path) -> int:
    """Bytes that a folder takes on a tmpfs."""
    files = (file for file in path.rglob("*") if file.is_file() and not file.is_symlink())
    return sum(-(-file.stat().st_size // PAGE) * PAGE for file in files)
