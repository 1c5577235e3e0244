"""Turn the recipe's sources into tokenized data sets, once for all steps."""

from __future__ import annotations

from quantship.artifact import Facts
from quantship.frozen import Frozen
from quantship.job import Job
from quantship.recipe.language import Data

REVISION = 1
TRAIN, EVAL = "train", "eval"


class Settings(Frozen):
    """What a prepared data set is made from, beside the tokenizer of the model it is for."""

    data: Data
    seed: int
    file_digests: tuple[tuple[str, ...], ...]
    """Digests of the local files of each source, those of train before those of eval."""


def run(job: Job) -> Facts:
    """Write ``train/`` and ``eval/`` with ``Dataset.save_to_disk``."""
    from quantship.data.prepare import prepare
    from quantship.models import load_tokenizer

    settings: Settings = job.settings
    data = settings.data
    tokenizer = load_tokenizer(job.inputs["model"].path)
    facts: Facts = {}
    for name, sources, training in ((TRAIN, data.train, True), (EVAL, data.eval, False)):
        if not sources:
            continue
        dataset, facts[name] = prepare(
            sources,
            tokenizer,
            max_length=data.max_length,
            chat_template=data.chat_template,
            mask_prompt=data.mask_prompt,
            packing=data.packing and training,
            seed=settings.seed,
            shuffle=training,
        )
        dataset.save_to_disk(job.out / name)
    return facts
