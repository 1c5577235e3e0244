"""The readers that are fed with hostile files, each as a user or a stage calls it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from random import Random

import mutate
import seeds


@dataclass(frozen=True)
class Target:
    """A reader.

    Args:
        seeds: Folders of sound files, one of which is changed.
        read: Reads the changed folder; the other arguments are the seed's own folder and dice.
        allowed: Errors that its contract names, beside QuantshipError.
        links: Whether links to files outside are refused; the others read what a user names.
    """

    seeds: tuple[str, ...]
    read: Callable[[Path, Path, Random], object]
    allowed: tuple[type[Exception], ...] = ()
    links: bool = False


def _recipe(folder: Path, sound: Path, dice: Random) -> None:
    from quantship.recipe import check

    overrides = []
    if dice.random() < 0.3:
        key = ".".join(
            dice.choice(("steps", "data", "model", "0", "qat", "path", "", "x")) for _ in "ab"
        )
        overrides.append(f"{key}={dice.choice(mutate.WORDS)}")
    with _inside(folder):
        check(Path("recipe.yaml"), overrides=overrides)


def _inspect(folder: Path, sound: Path, dice: Random) -> None:
    from quantship.inspection.inspect import inspect
    from quantship.inspection.terminal import render

    found = inspect(folder, session=dice.random() < 0.2)
    found.model_dump_json()
    render(found, every=True)


def _validate(folder: Path, sound: Path, dice: Random) -> None:
    from quantship.validation.options import Options
    from quantship.validation.run import validate

    asked = Options(sequences=1, length=8, new_tokens=2)
    pair = (sound, folder) if dice.random() < 0.5 else (folder, sound)
    validate(*pair, asked).model_dump_json()


def _compare(folder: Path, sound: Path, dice: Random) -> None:
    from quantship.comparing.compare import compare
    from quantship.comparing.html import render

    run = Path("runs") / "small"
    render(compare([folder / run, sound / run]))


def _finished(folder: Path, sound: Path, dice: Random) -> None:
    """Artifacts, lock and report of a run, as its next one and a push read them."""
    from quantship import artifact
    from quantship.provenance.lock import read_lock
    from quantship.publishing.finished import open_run
    from quantship.repeating import begin

    for place in (sound / "steps").iterdir():
        stage, _, _ = place.name.rpartition("-")
        known = json.loads((place / artifact.MANIFEST).read_bytes())
        artifact.find(folder, stage, known["fingerprint"])
    run = folder / "runs" / "small"
    readers = (read_lock, open_run, begin)
    for reader in readers if folder == sound else (dice.choice(readers),):
        reader(run)


def _codes(folder: Path, sound: Path, dice: Random) -> None:
    from quantship.quant.checkpoint import codes_on_demand, load_codes

    load_codes(folder)
    dict(codes_on_demand(folder))


def _load(folder: Path, sound: Path, dice: Random) -> None:
    import torch

    import quantship
    from quantship.reading import reading

    model = quantship.load(folder)
    with torch.inference_mode(), reading(folder):  # as a stage tells what transformers trips over
        model(input_ids=torch.tensor([[5, 6, 7]]))


def _model(folder: Path, sound: Path, dice: Random) -> None:
    """What planning and the stages read of a model from outside."""
    from quantship import models

    models.from_directory(folder)
    models.num_parameters(folder)
    models.file_dtype(folder)
    models.classifies(folder)
    models.weight_bytes(folder)
    models.load_tokenizer(folder)
    models.load_float(folder)


def _module(folder: Path, sound: Path, dice: Random) -> None:
    import quantship

    quantship.load_into(seeds.module(), folder / "model.safetensors")


def _definitions(folder: Path, sound: Path, dice: Random) -> None:
    from quantship.tasks.lm_eval_definitions import find_obstacles

    with _inside(folder):
        list(find_obstacles("quiz", Path()))


def _data(folder: Path, sound: Path, dice: Random) -> None:
    from pydantic import TypeAdapter

    from quantship.data import Source, rows

    sources = [
        {"adapter": "alpaca", "path": "alpaca.json"},
        {"adapter": "sharegpt", "path": "sharegpt.json"},
        {"adapter": "chat", "path": "chat.jsonl"},
        {"adapter": "glue", "task": "sst2", "path": "sst2.parquet"},
        {"adapter": "glue", "task": "sst2", "path": "sst2.tsv"},
        {"adapter": "squad", "path": "squad.json"},
        {"adapter": "hub", "dataset": "saved"},
    ]
    with _inside(folder):
        problems = []
        for source in sources:
            try:
                list(rows(TypeAdapter(Source).validate_python(source)))
            except DATA_ERRORS as error:
                problems.append(error)
        if problems:
            raise problems[0]


@contextmanager
def _inside(folder: Path) -> Iterator[None]:
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def _data_errors() -> tuple[type[Exception], ...]:
    from quantship.errors import QuantshipError

    return (QuantshipError,)


DATA_ERRORS = _data_errors()
_EXPORTS = tuple(f"onnx-{lowering}" for _, lowering in seeds.ONNX)
TARGETS = {
    "recipe": Target(("recipe",), _recipe, links=True),
    "inspect ONNX": Target(_EXPORTS, _inspect),
    "validate ONNX": Target(_EXPORTS, _validate),
    "inspect checkpoint": Target((*seeds.CHECKPOINTS, "float", "module"), _inspect),
    "validate checkpoint": Target((*seeds.CHECKPOINTS, "float"), _validate),
    "codes": Target(seeds.CHECKPOINTS, _codes),
    "load": Target((*seeds.CHECKPOINTS, "float"), _load),
    "model": Target(("float",), _model),
    "load_into": Target(("module",), _module, (ValueError,)),
    "compare": Target(("run",), _compare),
    "finished run": Target(("run",), _finished),
    "task definitions": Target(("definitions",), _definitions),
    "data": Target(("data",), _data),
}


def prepared(
    target: Target, made: Path, folder: Path, dice: Random
) -> tuple[Callable[[], object], str]:
    """A reader with an example to read.

    Args:
        target: The target.
        made: Folder of the seeds.
        folder: Where the example is made; beside it lies the folder outside.
        dice: What the example is decided by.

    Returns:
        The reader, and what was done to the seed, in words.
    """
    seed = dice.choice(target.seeds)
    mutate.linked(made / seed, folder)
    done = mutate.change(folder, dice, links=target.links)
    return partial(target.read, folder, made / seed, dice), f"{seed}: {done}"
