"""Turn the recipe's sources into data sets to train and to evaluate on, once for all steps."""

from __future__ import annotations

from typing import TYPE_CHECKING

from quantship.artifact import Facts, digest_file
from quantship.data import local_files, pinning
from quantship.frozen import Frozen
from quantship.job import Job
from quantship.recipe.language import Data

if TYPE_CHECKING:
    from pathlib import Path

    from datasets import Dataset

    from quantship.data import Source

REVISION = 1
TRAIN, EVAL = "train", "eval"


class Settings(Frozen):
    """What a prepared data set is made from, beside the tokenizer of the model it is for."""

    data: Data
    seed: int
    file_digests: tuple[tuple[str, ...], ...]
    """Digests of the local files of each source, those of train before those of eval."""


def settings_of(data: Data, seed: int) -> Settings:
    """What the data of a recipe is made from: digests of local files, commits of remote ones."""
    tied = data.model_copy(
        update={
            "train": tuple(map(pinning.pinned, data.train)),
            "eval": tuple(map(pinning.pinned, data.eval)),
        }
    )
    sources = (*tied.train, *tied.eval)
    digests = tuple(tuple(map(digest_file, local_files(source))) for source in sources)
    return Settings(data=tied, seed=seed, file_digests=digests)


def run(job: Job) -> Facts:
    """Write ``train/`` and ``eval/`` with ``Dataset.save_to_disk``."""
    settings: Settings = job.settings
    data = settings.data
    facts: Facts = {}
    for name, sources, training in ((TRAIN, data.train, True), (EVAL, data.eval, False)):
        if sources:
            made, facts[name] = _prepare(sources, settings, job.inputs["model"].path, training)
            made.save_to_disk(job.out / name)
    return facts


def _prepare(
    sources: tuple[Source, ...], settings: Settings, model: Path, training: bool
) -> tuple[Dataset, Facts]:
    from quantship.data import holds_samples
    from quantship.data.features import prepare_samples
    from quantship.data.prepare import prepare
    from quantship.models import load_tokenizer

    data = settings.data
    if holds_samples(sources[0]):  # then all do: a recipe's check sees to it
        return prepare_samples(sources, seed=settings.seed, shuffle=training)
    return prepare(
        sources,
        load_tokenizer(model),
        max_length=data.max_length,
        chat_template=data.chat_template,
        mask_prompt=data.mask_prompt,
        packing=data.packing and training,
        seed=settings.seed,
        shuffle=training,
    )
