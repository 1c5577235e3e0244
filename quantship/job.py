"""The jobs that a recipe comes down to, and what a stage is given to do one of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from quantship.artifact import Artifact
from quantship.frozen import Frozen
from quantship.quant.scheme import Scheme

OUTSIDE = "model"
"""Stage of a model directory that no job makes."""


@dataclass(frozen=True)
class Job:
    """One run of one stage.

    Args:
        settings: The stage's own settings; what it is depends on the stage.
        inputs: Artifacts by role, as ``model``, ``data``, ``reference``.
        out: Empty directory to write into; it is moved to its final place afterwards.
        resume: Directory whose content survives a failed or killed run of the same job.
    """

    settings: Any
    inputs: Mapping[str, Artifact]
    out: Path
    resume: Path


@dataclass(frozen=True)
class Node:
    """One job of a run.

    Args:
        name: Name of the step, or of what is measured, as ``evaluate ptq``.
        stage: Key of ``plan.STAGES``, or ``OUTSIDE``.
        settings: The stage's settings; None for ``OUTSIDE``.
        inputs: Role to node name.
        scheme: Scheme of the model it leaves, if it leaves a quantized one.
        group: What a model is to the run: baseline, finetune, ptq or qat; empty for the rest.
        fingerprint: Hash of everything above, inputs included.
    """

    name: str
    stage: str
    settings: Frozen | None
    inputs: Mapping[str, str]
    scheme: Scheme | None
    group: str
    fingerprint: str

    @property
    def leaves_model(self) -> bool:
        """Whether the job's directory is a model to evaluate and to benchmark."""
        return bool(self.group)


@dataclass(frozen=True)
class Waiting:
    """A job that cannot be planned yet, since a search comes first.

    Args:
        name: As of a node.
        stage: As of a node.
        search: The search whose scheme it waits for.
    """

    name: str
    stage: str
    search: str


@dataclass(frozen=True)
class Plan:
    """All jobs of a recipe in the order in which they run.

    Args:
        nodes: Jobs; each one's inputs come before it.
        outside: Models that no job makes, by the name of their node.
        waiting: Jobs that are planned when the searches among ``nodes`` have found their schemes.
    """

    nodes: tuple[Node, ...]
    outside: Mapping[str, Artifact]
    waiting: tuple[Waiting, ...] = ()

    def __getitem__(self, name: str) -> Node:
        return next(node for node in self.nodes if node.name == name)
