"""Evaluate one model on one task, and keep what became of every example."""

from __future__ import annotations

import time
from dataclasses import asdict
from importlib.metadata import version
from typing import TYPE_CHECKING

from pydantic import SerializeAsAny

from quantship.artifact import Facts, digest_file
from quantship.data import pinning
from quantship.frozen import Frozen
from quantship.job import Job
from quantship.recipe.language import Recipe
from quantship.tasks.table import Options as Task

if TYPE_CHECKING:
    from pathlib import Path

    from quantship.tasks.base import Subject

REVISION = 1


class Settings(Frozen):
    """What an evaluation depends on, beside its inputs."""

    task: SerializeAsAny[Task]
    file_digests: tuple[str, ...]
    """Digests of the local files that the task reads."""
    versions: dict[str, str]
    """Versions of the packages that define what is measured."""
    chat_template: str | None
    max_length: int
    batch_size: int
    seed: int


def settings_of(task: Task, recipe: Recipe) -> Settings:
    """What evaluating on a task is made from: digests of local files, commits of remote ones."""
    assert recipe.evaluation is not None
    sources = {key: getattr(task, key, None) for key in ("source", "shots_source")}
    pins = {key: pinning.pinned(one) for key, one in sources.items() if one is not None}
    task = task.model_copy(update=pins)
    return Settings(
        task=task,
        file_digests=tuple(map(digest_file, task.files)),
        versions={name: version(name) for name in task.packages},
        chat_template=recipe.data.chat_template,
        max_length=recipe.data.max_length,
        batch_size=recipe.evaluation.batch_size,
        seed=recipe.seed,
    )


def run(job: Job) -> Facts:
    """Metrics of the ``model`` input on the task, beside a ``reference`` where the task needs it.

    Writes what became of every example, so that models can be compared on the same examples.
    """
    from quantship.tasks import scores
    from quantship.tasks.base import Context
    from quantship.tasks.table import TASKS

    settings: Settings = job.settings
    subject = _open(job.inputs["model"].path)
    context = Context(
        data=job.inputs["data"].path / "eval",
        reference=_open(job.inputs["reference"].path) if "reference" in job.inputs else None,
        chat_template=settings.chat_template,
        max_length=settings.max_length,
        batch_size=settings.batch_size,
        seed=settings.seed,
        resume=job.resume,
    )
    began = time.monotonic()
    outcome = TASKS[settings.task.task].evaluate(subject, settings.task, context)
    seconds = time.monotonic() - began
    scores.write(outcome.examples, job.out)
    return {
        "task": settings.task.task,
        "runtime": subject.runtime.name,
        "metrics": {one.name: scores.mean(one, outcome.examples) for one in outcome.metrics},
        "extra": dict(outcome.extra),
        "about": [asdict(metric) for metric in outcome.metrics],
        "num_examples": len(outcome.examples),
        "digest": scores.digest(outcome.examples),
        "seconds": seconds,
        "notes": list(outcome.notes),
    }


def _open(path: Path) -> Subject:
    from quantship.models import load_tokenizer
    from quantship.runtimes.base import classifies, open_classifier, open_runtime
    from quantship.runtimes.kinds import read_kind
    from quantship.tasks.base import Subject

    if classifies(path):
        reads_text = read_kind(path) == "texts"
        tokenizer = load_tokenizer(path) if reads_text else None
        return Subject(path, open_classifier(path), tokenizer)
    return Subject(path, open_runtime(path), load_tokenizer(path))
