"""Where loss curves go while models train, and whether the packages for it are here."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Literal

from pydantic import Field, field_validator

from quantship.frozen import Frozen
from quantship.recipe.findings import Finding

if TYPE_CHECKING:
    from quantship.recipe.language import Recipe

Tracker = Literal["tensorboard", "trackio", "wandb"]
OLDEST: dict[Tracker, tuple[int, int]] = {
    "tensorboard": (2, 0),
    "trackio": (0, 23),
    "wandb": (0, 16),
}
"""Versions that transformers' Trainer can speak to."""


class Tracking(Frozen):
    """Send the loss curves of training steps elsewhere as well; the report has them in any case."""

    report_to: tuple[Tracker, ...] = Field(min_length=1)
    """Where to, one word or a list: ``tensorboard`` (files in ``tracking`` below the artifacts),
    ``trackio`` or ``wandb`` (where their own settings say)."""
    project: str | None = Field(default=None, min_length=1, pattern=r"^[^/\\]+$")
    """Project of trackio and wandb; default: the recipe's name."""
    run_name: str | None = Field(default=None, pattern=r"^[\w.-]+$")
    """What names of runs begin with, before the step's name; default: the recipe's name."""

    @field_validator("report_to", mode="before")
    @classmethod
    def _one_or_many(cls, value: object) -> object:
        return (value,) if isinstance(value, str) else value


class TrackedRun(Frozen):
    """One training step, as trackers know it."""

    report_to: tuple[Tracker, ...]
    project: str
    name: str


def run_of(recipe: Recipe, step: str) -> TrackedRun | None:
    """What a training step is to trackers; None: nobody is told of it."""
    asked = recipe.tracking
    if asked is None:
        return None
    name = f"{asked.run_name or recipe.name}-{step}"
    return TrackedRun(report_to=asked.report_to, project=asked.project or recipe.name, name=name)


def find_problems(recipe: Recipe) -> Iterator[Finding]:
    """Trackers whose package is not installed, or too old."""
    for index, tracker in enumerate(recipe.tracking.report_to if recipe.tracking else ()):
        reason = _reject(tracker)
        if reason is not None:
            remedy = "Install it: pip install 'quantship[tracking]'."
            if tracker == "wandb":
                remedy = "Install it: pip install wandb."
            yield Finding(("tracking", "report_to", index), reason, remedy)


def _reject(tracker: Tracker) -> str | None:
    try:
        found = version(tracker)
    except PackageNotFoundError:
        return f"{tracker} is not installed"
    numbers = tuple(int(part) for part in found.split(".")[:2])
    least = OLDEST[tracker]
    return None if numbers >= least else f"{tracker} {found} is older than {least[0]}.{least[1]}"
