"""Make the built-in tiny model: random weights and a byte-level tokenizer."""

from __future__ import annotations

from quantship.artifact import Facts
from quantship.frozen import Frozen
from quantship.job import Job
from quantship.recipe.language import TinyModel

REVISION = 1


class Settings(Frozen):
    """What a tiny model is made from."""

    dimensions: TinyModel
    seed: int


def run(job: Job) -> Facts:
    """Write a Hugging Face directory."""
    from quantship.tiny import build_model, build_tokenizer

    settings: Settings = job.settings
    tokenizer = build_tokenizer(settings.dimensions.max_positions)
    model = build_model(settings.dimensions, tokenizer, settings.seed)
    model.save_pretrained(job.out)
    tokenizer.save_pretrained(job.out)
    return {"num_parameters": model.num_parameters()}
