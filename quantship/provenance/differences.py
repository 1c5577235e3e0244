"""What is not as a lock says: before a run, and of what it made."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from quantship.provenance.lock_schema import Environment, Lock, LockedModel, LockedSource, Made

Kind = Literal["code", "package", "machine", "threads", "data", "model"]
NOTHING = "–"


@dataclass(frozen=True)
class Difference:
    """One thing that is not what it was.

    Args:
        kind: What kind of thing it is.
        name: Its name.
        locked: What it was.
        here: What it is.
        forbids: Whether other results are certain, so that a run has to be asked for twice.
    """

    kind: Kind
    name: str
    locked: str
    here: str
    forbids: bool = False


@dataclass(frozen=True)
class Repeated:
    """Whether a job made again what it made before.

    Args:
        name: Of the job.
        stage: Its stage.
        files: Files that hold something else, or are there only once; empty: none.
        results: What it measured before and now, where that is not equal to the last digit.
    """

    name: str
    stage: str
    files: tuple[str, ...]
    results: Mapping[str, tuple[float | None, float | None]]

    @property
    def is_equal(self) -> bool:
        """Whether nothing differs."""
        return not self.files and not self.results


def before(lock: Lock, here: Environment, now: Lock) -> list[Difference]:
    """What differs before a run starts.

    Args:
        lock: What is to be repeated.
        here: The environment of this process.
        now: A lock of the same recipe as it is planned now; its artifacts are not looked at.
    """
    found = [*_inputs(lock, now)]
    for environment in lock.environments.values():
        found += _environment(environment, here)
    return list(dict.fromkeys(found))


def after(lock: Lock, now: Lock) -> list[Repeated]:
    """What became of every job of a lock that has run again, in the lock's order."""
    return [
        _repeated(name, made, now.artifacts[name])
        for name, made in lock.artifacts.items()
        if name in now.artifacts
    ]


def _inputs(lock: Lock, now: Lock) -> Iterator[Difference]:
    for name, model in lock.models.items():
        other = now.models.get(name)
        if other is None or other.fingerprint != model.fingerprint:
            yield Difference("model", name, _of_model(model), _of_model(other), forbids=True)
    sources = {source.key: source for source in now.data}
    for source in lock.data:
        found = sources.get(source.key)
        if found is None or (found.files, found.commit) != (source.files, source.commit):
            yield Difference("data", source.key, _of_data(source), _of_data(found), forbids=True)


def _environment(locked: Environment, here: Environment) -> Iterator[Difference]:
    yield from _unequal("code", {"quantship": locked.quantship}, {"quantship": here.quantship})
    yield from _unequal("code", {"git commit": _commit(locked)}, {"git commit": _commit(here)})
    yield from _unequal("package", {"python": locked.python}, {"python": here.python})
    yield from _unequal("package", locked.packages, here.packages)
    yield from _unequal("machine", _machine(locked), _machine(here))
    yield from _unequal("threads", locked.threads, here.threads)


def _unequal(
    kind: Kind, locked: Mapping[str, str], here: Mapping[str, str]
) -> Iterator[Difference]:
    for name in dict.fromkeys((*locked, *here)):
        then, now = locked.get(name, NOTHING), here.get(name, NOTHING)
        if then != now:
            yield Difference(kind, name, then, now)


def _machine(environment: Environment) -> dict[str, str]:
    return {
        "os": environment.os,
        "cpu": environment.cpu_model,
        "instruction sets": ", ".join(environment.instruction_sets) or NOTHING,
        "gpu": environment.gpu or "none",
    }


def _commit(environment: Environment) -> str:
    checkout = environment.checkout
    if checkout is None:
        return "installed"
    return checkout.commit[:12] + (", with changes" if checkout.dirty else "")


def _of_model(model: LockedModel | None) -> str:
    if model is None:
        return NOTHING
    return f"commit {model.commit[:12]}" if model.commit else f"content {model.fingerprint[:12]}"


def _of_data(source: LockedSource | None) -> str:
    if source is None:
        return NOTHING
    if source.commit is not None:
        return f"commit {source.commit[:12]}"
    return "content " + ", ".join(digest[:12] for digest in source.files)


def _repeated(name: str, locked: Made, now: Made) -> Repeated:
    files = [
        file
        for file in dict.fromkeys((*locked.files, *now.files))
        if locked.files.get(file) != now.files.get(file)
    ]
    results = {
        result: (locked.results.get(result), now.results.get(result))
        for result in dict.fromkeys((*locked.results, *now.results))
        if locked.results.get(result) != now.results.get(result)
    }
    return Repeated(name, locked.stage, tuple(files), results)
