"""Turn the recipe's sources into data sets to train and to evaluate on, once for all steps."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from quantship.artifact import Facts, digest_file
from quantship.data import local_files, pinning
from quantship.frozen import Frozen
from quantship.job import Job
from quantship.recipe.language import Data

if TYPE_CHECKING:
    from quantship.data.parts import Part, Reading

REVISION = 1
TRAIN, EVAL, OVERLAP = "train", "eval", "overlap"


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


def parts(data: Data, seed: int) -> dict[str, list[Part]]:
    """What there is to train and to evaluate on, by the name of the data set that it becomes."""
    from quantship.data.parts import Holdout, sides

    holdout = None if data.holdout is None else Holdout(data.holdout, seed)
    train, evaluation = sides(data.train, data.eval, holdout)
    return {name: taken for name, taken in ((TRAIN, train), (EVAL, evaluation)) if taken}


def run(job: Job) -> Facts:
    """Write ``train/`` and ``eval/``, to be read with ``load_from_disk``.

    Beside the facts of both, ``overlap`` says of each source to evaluate on how many of its records
    are trained on as well.
    """
    from quantship.data import overlap
    from quantship.data.parts import Reading

    settings: Settings = job.settings
    facts: Facts = {}
    hashes: dict[str, list[Path]] = {}
    with TemporaryDirectory(dir=job.out, prefix=".hashes-") as folder:
        for name, taken in parts(settings.data, settings.seed).items():
            hashes[name] = [Path(folder) / f"{name}-{index}" for index in range(len(taken))]
            readings = [Reading(*pair) for pair in zip(taken, hashes[name], strict=True)]
            model = job.inputs["model"].path
            facts[name] = _write(job.out / name, readings, settings, model, name == TRAIN)
        if len(hashes) == 2:
            facts[OVERLAP] = overlap.count(hashes[TRAIN], hashes[EVAL])
    return facts


def _write(
    out: Path, readings: list[Reading], settings: Settings, model: Path, training: bool
) -> Facts:
    from quantship.data import holds_samples, prepare
    from quantship.data.features import prepare_samples
    from quantship.data.texts import open_reader, prepare_texts
    from quantship.models import load_tokenizer
    from quantship.runtimes.kinds import read_kind

    data, seed = settings.data, settings.seed
    if holds_samples(readings[0].part.source):  # then all do: a recipe's check sees to it
        made, facts = prepare_samples(readings, seed=seed, shuffle=training)
    elif read_kind(model) == "texts":
        reader = open_reader(model, load_tokenizer(model), data.max_length)
        made, facts = prepare_texts(readings, reader, seed=seed, shuffle=training)
    else:
        tokenizer = load_tokenizer(model)
        form = prepare.Format(tokenizer, data.max_length, data.chat_template, data.mask_prompt)
        packing = data.packing and training
        return prepare.write(out, readings, form, packing=packing, seed=seed if training else None)
    made.save_to_disk(out)
    return facts
