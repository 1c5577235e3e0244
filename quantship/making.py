"""Make one job's artifact: in one process, or in all of them together."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from quantship import artifact, disk, hardware, memory, processes
from quantship import plan as planning
from quantship.artifact import Artifact, Facts
from quantship.errors import QuantshipError, StageError
from quantship.exporters import advice
from quantship.job import Job, Node
from quantship.plan import STAGES
from quantship.runtimes.built_for import BuiltFor
from quantship.scrubbing import scrub

EventKind = Literal["reused", "started", "finished", "failed"]


@dataclass(frozen=True)
class Event:
    """Something to tell the user while a recipe runs.

    Args:
        kind: What happened.
        step: Name of the job.
        stage: Its stage.
        seconds: How long it took; None before it has ended.
        detail: More, in words; may be empty.
        warnings: What to beware of in the model that it left.
        process: Which process does it; None: the only one, or all of them together.
    """

    kind: EventKind
    step: str
    stage: str
    seconds: float | None = None
    detail: str = ""
    warnings: tuple[str, ...] = ()
    process: int | None = None


Notify = Callable[[Event], None]


@dataclass(frozen=True)
class Making:
    """A job that is about to be made.

    Args:
        node: The job.
        inputs: What it starts from, by role.
        root: Where artifacts land.
        seal: Writes into its directory how it was made.
        needed_bytes: Roughly what it writes; None: not known.
    """

    node: Node
    inputs: Mapping[str, Artifact]
    root: Path
    seal: Callable[[Path, Facts], object]
    needed_bytes: int | None

    @property
    def final(self) -> Path:
        """Where its artifact will lie."""
        return artifact.directory(self.root, self.node.stage, self.node.fingerprint)

    @property
    def resume(self) -> Path:
        """Where it keeps what a later run can go on from."""
        return _resume(self.final)


def find(node: Node, root: Path, notify: Notify) -> Artifact | None:
    """What an earlier run has made of a job, or None."""
    found = artifact.find(root, node.stage, node.fingerprint)
    if found is not None:
        artifact.tidy(found.path)  # of a run killed right after its last rename
        notify(Event("reused", node.name, node.stage))
    return found


def make(job: Making, notify: Notify) -> Artifact:
    """Do a job in this process.

    Raises:
        StageError: It failed.
    """
    notify(Event("started", job.node.name, job.node.stage))
    unfinished = artifact.begin(job.final)
    began = time.monotonic()
    try:
        facts = _run(job, unfinished)
        seconds = time.monotonic() - began
        finished = _finish(job, unfinished, facts, seconds)
    except Exception as error:
        notify(Event("failed", job.node.name, job.node.stage, time.monotonic() - began))
        raise _failure(job, unfinished, error) from error
    _tell(job, finished, seconds, notify)
    return finished


def make_jointly(job: Making, notify: Notify) -> Artifact:
    """Do a job in all processes together; the first one writes.

    Raises:
        StageError: It failed.
        QuantshipError: It failed in another process.
        KeyboardInterrupt: This or another process was stopped.
    """
    if processes.is_first():
        notify(Event("started", job.node.name, job.node.stage))
    unfinished = processes.first_does(lambda: artifact.begin(job.final))
    unfinished = job.final.with_name(unfinished.name)  # the others may see it elsewhere
    began = time.monotonic()
    try:
        facts = _run(job, unfinished)
        seconds = time.monotonic() - began
    except Exception as error:
        if processes.is_first():
            notify(Event("failed", job.node.name, job.node.stage, time.monotonic() - began))
        # Who loses the connection to another one in the middle of a step has failed of its end.
        left = processes.cause()
        if left is not None:
            raise processes.follow(left) from error
        raise _failure(job, unfinished, error) from error
    processes.meet()

    def finish() -> Artifact:
        try:
            return _finish(job, unfinished, facts, seconds)
        except Exception as error:
            notify(Event("failed", job.node.name, job.node.stage, time.monotonic() - began))
            raise _failure(job, unfinished, error) from error

    finished = processes.first_does(finish)
    if processes.is_first():
        _tell(job, finished, seconds, notify)
    return finished


def _run(job: Making, unfinished: Path) -> Facts:
    node = job.node
    assert node.settings is not None
    facts: Facts = STAGES[node.stage].run(Job(node.settings, job.inputs, unfinished, job.resume))
    return facts


def _finish(job: Making, unfinished: Path, facts: Facts, seconds: float) -> Artifact:
    node = job.node
    assert node.settings is not None
    job.seal(unfinished, facts)
    return artifact.finish(
        unfinished,
        stage=node.stage,
        fingerprint=node.fingerprint,
        settings=planning.describe(node.settings),
        inputs={role: item.fingerprint for role, item in job.inputs.items()},
        facts=facts,
        duration_s=seconds,
    )


def _failure(job: Making, unfinished: Path, error: Exception) -> StageError:
    """What to tell of an error, with the rest kept to look at."""
    written = sum(map(artifact.size_bytes, (unfinished, job.resume)))
    full = disk.complaint(error, job.root, written_bytes=written, needed_bytes=job.needed_bytes)
    if full is not None:
        artifact.remove(unfinished)  # what is torn takes the room that is short
        return StageError(job.node.name, full)
    with suppress(OSError):
        (unfinished / "error.log").write_text(scrub(traceback.format_exc()))
    said = memory.complaint(error) or _in_words(error)
    return StageError(job.node.name, said, unfinished)


def _tell(job: Making, finished: Artifact, seconds: float, notify: Notify) -> None:
    artifact.tidy(job.final)  # only now is there nothing left to resume
    detail, warnings = _advice(finished.facts)
    notify(Event("finished", job.node.name, job.node.stage, seconds, detail, warnings))


def _advice(facts: Mapping[str, Any]) -> tuple[str, tuple[str, ...]]:
    """What was decided about an exported model, and what to beware of on its target and here."""
    if "lowering_reason" not in facts:
        return "", ()
    built = BuiltFor(facts["lowering"], facts["target"], facts["signed_weights"])
    detail = f"{built.lowering} for {built.target}"
    return detail, (*facts["warnings"], *advice.elsewhere(built, hardware.kind()))


def _in_words(error: Exception) -> str:
    said = str(error) if isinstance(error, QuantshipError) else f"{type(error).__name__}: {error}"
    return scrub(said)


def _resume(final: Path) -> Path:
    return final.with_name(final.name + ".resume")
