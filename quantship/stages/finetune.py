"""Train the float model."""

from __future__ import annotations

from quantship.artifact import Facts
from quantship.frozen import Frozen
from quantship.job import Job
from quantship.recipe.language import FinetuneStep
from quantship.recipe.tracking_options import TrackedRun

REVISION = 1


class Settings(Frozen):
    """What a fine-tuning depends on, beside its inputs."""

    step: FinetuneStep
    seed: int
    tracking: TrackedRun | None = None
    """Whom to tell of it; changes nothing about the model."""


def run(job: Job) -> Facts:
    """Write the trained model as a Hugging Face directory in float32.

    Several processes train it together, and the first one writes it.
    """
    from datasets import load_from_disk

    from quantship import processes
    from quantship.models import copy_tokenizer, load_float, pad_token_id
    from quantship.tracking import tracked
    from quantship.training import train

    settings: Settings = job.settings
    source = job.inputs["model"].path
    model = load_float(source)
    training = train(
        model,
        load_from_disk(str(job.inputs["data"].path / "train")),
        settings.step,
        pad_token_id=pad_token_id(source),
        seed=settings.seed,
        resume=job.resume,
        tracked=tracked(settings.tracking, job.out) if processes.is_first() else None,
    )
    if not processes.is_first():
        return {"training": training}
    model.cpu().save_pretrained(job.out)
    copy_tokenizer(source, job.out)
    return {"training": training}
