"""What all faults have in common: a run to disturb, one to hold it against, and the judgement."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from faults import moments, recipe
from faults.outcome import Stamp, finished, leftovers, outcome
from faults.recipe import FAULTS
from faults.runs import Run, Server

from quantship.artifact import MANIFEST

RIGHTS = ("--allow-code",)


@dataclass(frozen=True)
class Fault:
    """One fault, and what became of it.

    Args:
        kind: Row of the table.
        moment: When or where it struck.
        exit_code: Of the run that it struck; negative: the signal that killed it.
        message: The first line that this run complained with.
        seconds: From the fault to the run's end.
        clean: Whether it ended as it should: killed, or with a message and no traceback.
        recovered: Whether a further run ended as if nothing had been.
        lost: Artifacts, finished before, that were gone or made again.
        wrong: Parts of artifacts or of the report that are not what the undisturbed run made.
        remarks: What else there is to say.
    """

    kind: str
    moment: str
    exit_code: int | None
    message: str
    seconds: float
    clean: bool
    recovered: bool
    lost: tuple[str, ...] = ()
    wrong: tuple[str, ...] = ()
    remarks: str = ""

    @property
    def passed(self) -> bool:
        """Whether all is well."""
        return self.clean and self.recovered and not self.lost and not self.wrong


@dataclass(frozen=True)
class JobDone:
    """A job of the undisturbed run, in its order.

    Args:
        name: As the run shows it.
        directory: Name of its artifact.
        seconds: How long it took.
    """

    name: str
    directory: str
    seconds: float

    @property
    def stage(self) -> str:
        """Its stage."""
        return self.directory.rpartition("-")[0]


@dataclass(frozen=True)
class Reference:
    """A run that nothing came in the way of; its directory is not to be written to."""

    root: Path
    jobs: tuple[JobDone, ...]
    outcome: dict[str, Any]
    moments: tuple[tuple[str, int], ...]


@dataclass
class Lab:
    """Runs of the small recipe, in roots of their own below a folder.

    Args:
        folder: Where recipe, roots and outputs lie.
        server: Starts the runs, in that folder.
    """

    folder: Path
    server: Server
    _references: dict[str, Reference] = field(default_factory=dict)
    _roots: int = 0

    def start(self, root: Path, *, which: str = FAULTS, **options: Any) -> Run:
        """Start a run of a recipe; options are those of ``Server.start``."""
        path = str(recipe.path_of(self.folder, which))
        arguments = ("run", path, "--artifacts", str(root), *RIGHTS)
        return self.server.start(arguments, **options)

    def reference(self, which: str = FAULTS) -> Reference:
        """The undisturbed run of a recipe, made when it is first asked for."""
        if which not in self._references:
            recipe.write(self.folder)
            root, log = self.folder / f"undisturbed-{which}", self.folder / f"{which}.moments"
            run = self.start(root, which=which, watched={"root": str(root), "log": str(log)})
            if run.wait() != 0:
                raise RuntimeError(f"the undisturbed run failed: {run.stdout}{run.stderr}")
            jobs = _jobs(recipe.path_of(self.folder, which), root, run.happened("done"))
            made = outcome(root)
            assert not leftovers(root)
            self._references[which] = Reference(root, jobs, made, tuple(moments.read(log)))
        return self._references[which]

    def new_root(self) -> Path:
        """A path that nothing is at."""
        self._roots += 1
        return self.folder / f"root-{self._roots}"

    def rewound(self, job: JobDone | None, *, which: str = FAULTS) -> Path:
        """A root as it was right before a job; None: at the end, the report included."""
        reference, root = self.reference(which), self.new_root()
        names = [one.directory for one in reference.jobs]
        kept = names if job is None else names[: names.index(job.directory)]
        (root / "steps").mkdir(parents=True)
        for name in kept:
            shutil.copytree(reference.root / "steps" / name, root / "steps" / name)
        if job is None:
            shutil.copytree(reference.root / "runs", root / "runs", symlinks=True)
        return root

    def judge(
        self,
        kind: str,
        moment: str,
        root: Path,
        run: Run,
        *,
        clean: bool,
        seconds: float = 0.0,
        before: dict[str, Stamp] | None = None,
        which: str = FAULTS,
        remarks: Sequence[str] = (),
        keep: bool = False,
    ) -> Fault:
        """Run again, and see what there is then.

        Args:
            kind: Row of the table.
            moment: When or where the fault struck.
            root: Artifacts' directory, the fault's cause already taken away.
            run: The run that was disturbed, ended.
            clean: Whether it ended as it should.
            seconds: From the fault to its end.
            before: ``outcome.finished`` of artifacts that have to be reused; None: those that are
                whole now.
            which: The recipe.
            remarks: What else there is to say.
            keep: Leave the root where it is.
        """
        reference = self.reference(which)
        whole = finished(root) if before is None else before
        again = self.start(root, which=which)
        code = again.wait()
        after = finished(root)
        lost = tuple(sorted(name for name, stamp in whole.items() if after.get(name) != stamp))
        wrong: tuple[str, ...] = ()
        notes = [*remarks]
        if code == 0:
            made = outcome(root)
            wrong = tuple(
                sorted(
                    part
                    for part in made.keys() | reference.outcome.keys()
                    if made.get(part) != reference.outcome.get(part)
                )
            )
            notes += [f"left over: {name}" for name in leftovers(root)]
        else:
            notes.append(f"the further run ended with {code}: {again.stderr[-500:]}")
        recovered = code == 0 and not wrong and not leftovers(root)
        if not keep:
            shutil.rmtree(root, ignore_errors=True)
        return Fault(
            kind=kind,
            moment=moment,
            exit_code=run.returncode,
            message=first_line(run.stderr),
            seconds=round(seconds, 2),
            clean=clean,
            recovered=recovered,
            lost=lost,
            wrong=wrong,
            remarks="; ".join(notes),
        )


def first_line(text: str) -> str:
    """The first line of an output that is not empty."""
    return next((line for line in text.splitlines() if line.strip()), "")


def ended_with_a_message(run: Run, *codes: int) -> bool:
    """Whether a run ended with one of these codes and words, not with a traceback or a bug."""
    said = run.stderr
    return run.returncode in codes and bool(said) and not _is_raw(said)


def _is_raw(said: str) -> bool:
    return "Traceback (most recent call last)" in said or "internal error" in said


def _jobs(file: Path, root: Path, names: Sequence[str]) -> tuple[JobDone, ...]:
    from quantship import pipeline
    from quantship.recipe import load

    before = Path.cwd()
    os.chdir(root.parent)  # where the paths in the recipe start
    try:
        planned = {step.name: step for step in pipeline.plan(load(file), root)}
    finally:
        os.chdir(before)
    assert sorted(planned) == sorted(names), (sorted(planned), sorted(names))
    made = []
    for name in names:
        path = planned[name].path
        assert path is not None
        took = json.loads((path / MANIFEST).read_bytes())["duration_s"]
        made.append(JobDone(name, path.name, took))
    return tuple(made)


def elapsed(since: float) -> float:
    """Seconds since a moment of ``time.monotonic``."""
    return time.monotonic() - since
