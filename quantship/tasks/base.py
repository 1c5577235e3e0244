"""What an evaluation task is: a model in, one scored example after the other out.

A task is one file in this folder: an ``Options`` class whose ``task`` literal is its name in a
recipe, and ``evaluate(subject, options, context)``, which returns an ``Outcome``. The same code
runs on every runtime. Every metric is a mean over examples (or what such a mean becomes, as a
perplexity), so that any two models can be compared example by example.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from quantship.data import Source, local_files
from quantship.frozen import Frozen

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from quantship.runtimes.base import Classifier, Runtime

TASK_NAME = r"^[0-9]*[a-z][a-z0-9_-]*$"
Better = Literal["higher", "lower"]
Kind = Literal["share", "perplexity", "nats", "number"]
"""What a metric is: a mean from 0 to 1; exp of a mean; a mean in nats; a mean of anything else."""


@dataclass(frozen=True)
class Obstacle:
    """Why a task cannot run here.

    Args:
        key: Key of the task's that is at fault.
        message: What is wrong.
        remedy: What to do about it.
    """

    key: str
    message: str
    remedy: str


class TaskOptions(Frozen):
    """What every task understands."""

    name: str | None = Field(default=None, pattern=TASK_NAME)
    """Name in the report: small letters, digits, - and _. Default: the task's."""
    models: tuple[str, ...] | None = None
    """Models to evaluate: ``model``, steps, exports (``qat-onnx``). Default: all of the recipe."""
    limit: int | None = Field(default=None, ge=1)
    """Evaluate at most this many examples, from the start."""

    @property
    def sources(self) -> tuple[Source, ...]:
        """The data that the task reads, beside the recipe's own."""
        source: Source | None = getattr(self, "source", None)
        return () if source is None else (source,)

    @property
    def files(self) -> tuple[Path, ...]:
        """Local files that the task reads; their content belongs to its fingerprint."""
        return tuple(file for source in self.sources for file in local_files(source))

    @property
    def packages(self) -> tuple[str, ...]:
        """Packages that define what is measured; their versions belong to its fingerprint."""
        return ()

    @property
    def runs_code(self) -> str | None:
        """What code of others the task runs, as ``runs what models write``; None: none.

        Users have to allow it.
        """
        return None

    @property
    def needs_reference(self) -> bool:
        """Whether the task compares with the float model, so that that one has no result."""
        return False

    def find_obstacles(self) -> Iterable[Obstacle]:
        """What keeps the task from running on this machine, found before any work starts."""
        return ()


@dataclass(frozen=True)
class Subject:
    """A model under evaluation.

    Args:
        path: Its directory.
        runtime: The model, loaded on the runtime that serves it.
        tokenizer: Its tokenizer; None where it reads samples.
    """

    path: Path
    runtime: Runtime | Classifier
    tokenizer: PreTrainedTokenizerBase | None


@dataclass(frozen=True)
class Context:
    """What a task is evaluated with, beside its own options.

    Args:
        data: The recipe's prepared evaluation data, to be read with ``load_from_disk``.
        reference: The float model that the subject comes from, where the task needs it.
        chat_template: Jinja template; None: the tokenizer's own.
        max_length: Longest sequence in tokens.
        batch_size: Sequences at once.
        seed: Of everything random.
        resume: Directory whose content survives a killed run of the same evaluation.
    """

    data: Path
    reference: Subject | None
    chat_template: str | None
    max_length: int
    batch_size: int
    seed: int
    resume: Path


@dataclass(frozen=True)
class Metric:
    """One number that a task gives.

    Args:
        name: As ``exact_match``.
        better: Which way is better.
        kind: What the mean of the examples' values is.
        judges: Whether an example's value is 1 for right and 0 for wrong, so that examples which a
            model has lost can be listed.
    """

    name: str
    better: Better
    kind: Kind
    judges: bool = False


@dataclass(frozen=True)
class Example:
    """What a model made of one example.

    Args:
        id: Where it comes from, as ``test.jsonl:7``; the same for every model.
        values: Metric to what its mean is taken of, times ``weight``: right or wrong, nats summed
            over tokens.
        weight: What it counts in the mean, as its tokens; 0 where there was nothing to answer.
        prompt: What the model was given, in words; may be shortened.
        expected: What would have been right; None where nothing is.
        answer: What the model said; None where it said nothing.
    """

    id: str
    values: Mapping[str, float]
    weight: float = 1.0
    prompt: str | None = None
    expected: str | None = None
    answer: str | None = None


@dataclass(frozen=True)
class Outcome:
    """What one model made of a task.

    Args:
        metrics: What was measured, the headline first. Every example has a value of each.
        examples: In the order of the data, which is the same for every model.
        extra: Numbers that are no mean over examples, by name, as a corpus-level F1.
        notes: What a reader should know, in sentences: what was left out and why.
    """

    metrics: Sequence[Metric]
    examples: Sequence[Example]
    extra: Mapping[str, float] = field(default_factory=dict)
    notes: Sequence[str] = ()


def known_as(origin: str) -> str:
    """What an example is called wherever its file lies: ``test.jsonl:7``, without the folder."""
    return origin.rpartition("/")[2]
