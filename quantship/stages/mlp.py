"""Make a classifier with random weights."""

from __future__ import annotations

from quantship.artifact import Facts
from quantship.frozen import Frozen
from quantship.job import Job
from quantship.recipe.language import MlpModel

REVISION = 1


class Settings(Frozen):
    """What a classifier is made from."""

    dimensions: MlpModel
    seed: int


def run(job: Job) -> Facts:
    """Write a directory as ``save_pretrained`` does; it has no tokenizer."""
    from quantship.mlp.model import build_model

    settings: Settings = job.settings
    model = build_model(settings.dimensions.sizes, settings.seed)
    model.save_pretrained(job.out)
    return {"num_parameters": model.num_parameters()}
