"""Run again what a lock says, and say what is not as it was."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import RenderableType

from quantship import plan as planning
from quantship.errors import UsageError
from quantship.pipeline import RunResult
from quantship.provenance import differences, environment, showing
from quantship.provenance.contents import LOCK
from quantship.provenance.differences import Difference, Repeated
from quantship.provenance.lock import planned, read_lock, recipe_text
from quantship.provenance.lock_schema import Lock
from quantship.recipe.language import Recipe
from quantship.recipe.load import load_text


@dataclass(frozen=True)
class Repetition:
    """A run that is about to be repeated.

    Args:
        lock: What it was.
        recipe: Its recipe, tied to the commits that it read; it pushes nothing.
        found: What is not as it was.
    """

    lock: Lock
    recipe: Recipe
    found: tuple[Difference, ...]

    def require_inputs(self) -> None:
        """Refuse other data and other models than the lock's.

        Raises:
            UsageError: With everything that has changed.
        """
        changed = [one for one in self.found if one.forbids]
        if changed:
            lines = "".join(
                f"\n    {one.name}: {one.locked} in the lock, {one.here} here" for one in changed
            )
            raise UsageError(
                f"what the run read has changed since:{lines}\n"
                "    Bring it back, or give --allow-changed to run on what is here."
            )


def begin(path: Path, overrides: Sequence[str] = ()) -> Repetition:
    """Read a lock, and compare it with this machine and what lies on it; nothing is run.

    Args:
        path: A lock.json, or the directory that it lies in.
        overrides: ``KEY=VALUE`` settings, as where the data lies now.

    Raises:
        UsageError: There is no lock, or a model is not to be had.
        RecipeError: Its recipe cannot be run here, as where files are missing.
    """
    file = path / LOCK if path.is_dir() else path
    lock = read_lock(file)
    recipe = load_text(recipe_text(lock), file, overrides=overrides)
    recipe = recipe.model_copy(update={"push": None})
    now = planned(recipe, planning.make(recipe, download=False))
    found = differences.before(lock, environment.current(), now)
    return Repetition(lock, recipe, tuple(found))


def outcome(repetition: Repetition, result: RunResult) -> list[Repeated]:
    """Whether a finished run has made again what the lock says, job by job."""
    return differences.after(repetition.lock, read_lock(result.report_dir))


def differences_shown(repetition: Repetition) -> RenderableType:
    """What is not as the lock says, for a terminal."""
    return showing.before(repetition.found)


def outcome_shown(
    repetition: Repetition, result: RunResult, reused: Collection[str]
) -> RenderableType:
    """Whether a finished run has made what the lock says, for a terminal.

    Args:
        repetition: What was to be repeated.
        result: What the run left.
        reused: Names of the jobs that did not run.
    """
    return showing.after(outcome(repetition, result), reused)
