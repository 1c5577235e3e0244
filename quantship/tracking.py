"""Tell trackers of a training: transformers' own callbacks, kept from writing to the screen."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from quantship.recipe.tracking_options import TrackedRun, Tracker

if TYPE_CHECKING:
    from transformers import TrainerCallback

FOLDER = "tracking"
"""Directory below the artifacts' root for what trackers write there."""


@dataclass(frozen=True)
class Tracked:
    """A training that trackers are told of.

    Args:
        run: What it is to them.
        out: Directory of its artifact, in a folder of the artifacts' root; its name ends in the
            fingerprint.
    """

    run: TrackedRun
    out: Path

    @property
    def name(self) -> str:
        """The run's name, with a few letters that tell it from the same step, set otherwise."""
        return f"{self.run.name}-{self.out.name.removesuffix('.partial').rpartition('-')[2][:6]}"

    def callbacks(self, first_step: int) -> list[TrainerCallback]:
        """What Trainer is to call, beside what it always does.

        Args:
            first_step: Step that it goes on after; what was told of later ones is void.
        """
        return [self._callback(tracker, first_step) for tracker in self.run.report_to]

    def _callback(self, tracker: Tracker, first_step: int) -> TrainerCallback:
        from transformers.integrations import integration_utils

        folder = self.out.resolve().parents[1] / FOLDER
        if tracker == "tensorboard":
            from torch.utils.tensorboard import SummaryWriter

            writer = SummaryWriter(str(folder / self.name), purge_step=first_step + 1)
            return integration_utils.TensorBoardCallback(writer)
        if tracker == "wandb":  # which is set up from the environment alone
            folder.mkdir(parents=True, exist_ok=True)
            os.environ.setdefault("WANDB_PROJECT", self.run.project)
            os.environ.setdefault("WANDB_DIR", str(folder))
            os.environ.setdefault("WANDB_SILENT", "true")
            os.environ.setdefault("WANDB_CONSOLE", "off")  # else it keeps what is printed as well
        made: Any = _silently(integration_utils.INTEGRATION_TO_CALLBACK[tracker])()
        if tracker == "wandb":  # transformers leaves its run open, and the next step would go on it
            made.on_train_end = _then(made.on_train_end, made._wandb.finish)
        for event in ("on_train_begin", "on_train_end"):
            setattr(made, event, _silently(getattr(made, event)))
        callback: TrainerCallback = made
        return callback


def tracked(run: TrackedRun | None, out: Path) -> Tracked | None:
    """The training of an artifact, where trackers are to be told of it."""
    return None if run is None else Tracked(run, out)


def _then(call: Callable[..., Any], after: Callable[[], Any]) -> Callable[..., Any]:
    def both(*arguments: Any, **options: Any) -> None:
        call(*arguments, **options)
        after()

    return both


def _silently(call: Callable[..., Any]) -> Callable[..., Any]:
    """The same without a word: progress bars have the screen."""

    def silent(*arguments: Any, **options: Any) -> Any:
        with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            return call(*arguments, **options)

    return silent
