"""From a recipe to what it would train and evaluate on; of the model, only its tokenizer is read.

Sources are read by the code that a run prepares them with, so counts and digests are the run's.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from quantship import hub
from quantship.data import Source, class_names, holds_samples, overlap
from quantship.data.parts import Holdout, Part, Reading, sides
from quantship.data.pinning import pinned
from quantship.data.prepare import Format
from quantship.previewing import sides as making
from quantship.previewing.schema import Preview, Side
from quantship.recipe.evaluations import name_of
from quantship.recipe.language import Model, Recipe

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from quantship.data.texts import Reader

TRAIN, EVAL = "train", "eval"
TOKENIZER_FILES = ("*.json", "*.jinja", "*.model", "*.txt")
"""Files of a repository on the Hub that say how its model reads text."""


@dataclass(frozen=True)
class _Model:
    """How the recipe's model reads.

    Args:
        name: Where it comes from.
        tokenizer: None where it reads samples.
        reader: Where it tells the classes of texts.
    """

    name: str
    tokenizer: PreTrainedTokenizerBase | None
    reader: Reader | None


def preview(recipe: Recipe, *, examples: int, limit: int | None) -> Preview:
    """Read everything that a recipe trains and evaluates on, once.

    Args:
        recipe: As ``recipe.load`` returns it.
        examples: Records of each source to render.
        limit: Records of each source to read, at most; None: all.

    Raises:
        DataError: A record is malformed, the chat template fails, or nothing is left.
        UsageError: A model or a data set is not to be had.
    """
    data = recipe.data
    holdout = None if data.holdout is None else Holdout(data.holdout, recipe.seed)
    train, given = ([_limited(one, limit) for one in part] for part in (data.train, data.eval))
    found = []
    model = _opened(recipe)
    with TemporaryDirectory() as folder:
        hashes: dict[str, list[Path]] = {}
        for name, parts in zip((TRAIN, EVAL), sides(train, given, holdout), strict=True):
            hashes[name] = [Path(folder) / f"{name}-{index}" for index in range(len(parts))]
            readings = [Reading(*pair) for pair in zip(parts, hashes[name], strict=True)]
            if readings:
                found.append(_side(name, readings, model, recipe, Path(folder), examples))
        if hashes[TRAIN]:
            shared = overlap.count(hashes[TRAIN], hashes[EVAL])
            found[-1] = _with_overlap(found[-1], shared)
        for name, sources in _of_tasks(recipe, limit):
            readings = [Reading(Part(source)) for source in sources]
            found.append(_side(name, readings, model, recipe, Path(folder), examples))
    return Preview(
        recipe=recipe.name,
        model=model.name,
        max_length=data.max_length if model.tokenizer is not None else None,
        packing=data.packing,
        holdout=data.holdout,
        limit=limit,
        sides=tuple(found),
    )


def _side(
    name: str, readings: list[Reading], model: _Model, recipe: Recipe, folder: Path, examples: int
) -> Side:
    data = recipe.data
    seed = recipe.seed if name == TRAIN else None
    if holds_samples(readings[0].part.source):
        return making.of_samples(name, readings, seed=seed)
    if model.reader is not None:
        return making.of_texts(name, readings, model.reader, examples=examples, seed=seed)
    assert model.tokenizer is not None
    form = Format(model.tokenizer, data.max_length, data.chat_template, data.mask_prompt)
    packing = data.packing and name == TRAIN
    return making.of_language(
        name, readings, form, folder, examples=examples, packing=packing, seed=seed
    )


def _of_tasks(recipe: Recipe, limit: int | None) -> Iterator[tuple[str, list[Source]]]:
    """What evaluation tasks read beside the recipe's own data."""
    for task in recipe.evaluation.tasks if recipe.evaluation is not None else ():
        limits = [one for one in (limit, task.limit) if one is not None]
        sources = [_limited(source, min(limits, default=None)) for source in task.sources]
        if sources:
            yield name_of(task), sources


def _limited(source: Source, limit: int | None) -> Source:
    tied = pinned(source)
    limits = [one for one in (source.limit, limit) if one is not None]
    return tied.model_copy(update={"limit": min(limits, default=None)})


def _with_overlap(side: Side, shared: list[int]) -> Side:
    counted = [
        source.model_copy(update={"also_in_train": count})
        for source, count in zip(side.sources, shared, strict=True)
    ]
    return side.model_copy(update={"sources": tuple(counted)})


def _opened(recipe: Recipe) -> _Model:
    """The recipe's model, as far as it reads text."""
    from quantship.data.texts import open_reader
    from quantship.models import load_tokenizer
    from quantship.runtimes.kinds import read_kind
    from quantship.tiny import build_tokenizer

    model = recipe.model
    if model.mlp is not None:
        return _Model("mlp", None, None)
    if model.tiny is not None:
        return _Model("tiny", build_tokenizer(model.tiny.max_positions), None)
    path = _tokenizer_files(model)
    name = str(model.path or model.hub)
    tokenizer = load_tokenizer(path) if read_kind(path) != "samples" else None
    reader = None
    if tokenizer is not None and (model.head is not None or read_kind(path) == "texts"):
        reader = open_reader(path, tokenizer, recipe.data.max_length)
        if model.head is not None:
            reader = replace(reader, classes=class_names(recipe.data.sources[0]))
    return _Model(name, tokenizer, reader)


def _tokenizer_files(model: Model) -> Path:
    """The model's directory, or one with its tokenizer, fetched from the Hub."""
    if model.path is not None:
        return model.path
    from huggingface_hub import snapshot_download

    assert model.hub is not None
    commit = hub.commit(model.hub, model.revision, "model")
    files = [*TOKENIZER_FILES]
    return Path(snapshot_download(model.hub, revision=commit, allow_patterns=files))
