"""Whether the files a recipe names are there, and whether its numbers fit the model they hold."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from quantship.data import Source, local_files
from quantship.model_folder import find_dangers
from quantship.recipe.findings import Finding
from quantship.recipe.language import ExportStep, Model, QatStep, Recipe
from quantship.recipe.teacher import is_quantized, mismatch, read_makeup, tiny_makeup
from quantship.recipe.yaml_source import Key

_WEIGHTS_REMEDY = (
    "Load it once with transformers and write it back: "
    "model.save_pretrained(folder, safe_serialization=True)."
)


def find_problems(recipe: Recipe) -> Iterator[Finding]:
    """Everything wrong between a recipe and the files on this machine; touches none of them."""
    for part in ("train", "eval"):
        for index, source in enumerate(getattr(recipe.data, part)):
            yield from _source_findings(("data", part, index), source)
    for index, task in enumerate(recipe.evaluation.tasks if recipe.evaluation else ()):
        for source in task.sources:
            yield from _source_findings(("evaluation", "tasks", index, "source"), source)
    if recipe.model.path is not None:
        yield from _model_findings(("model", "path"), recipe.model.path)
        yield from _float_findings(recipe.model.path, recipe)
    for index, step in enumerate(recipe.steps):
        if isinstance(step, QatStep):
            yield from _teacher_findings(index, step, recipe.model)
    yield from _size_findings(recipe)


def _source_findings(key: Key, source: Source) -> Iterator[Finding]:
    for file in local_files(source):
        if not _is(file, "file"):
            what = "is a directory" if _is(file, "dir") else "no such file"
            remedy = f"Give a file; paths start from the current directory, {Path.cwd()}."
            yield Finding((*key, "path"), f"{what}: {file}", remedy)


def _model_findings(key: Key, path: Path) -> Iterator[Finding]:
    if not _is(path, "dir"):
        what = "is a file, not a model directory" if _is(path, "file") else "no such directory"
        remedy = "Give the directory that holds config.json, or a Hub id as hub."
        yield Finding(key, f"{what}: {path}", remedy)
        return
    if not _is(path / "config.json", "file"):
        remedy = "Give a directory that save_pretrained wrote."
        yield Finding(key, f"{path} holds no config.json", remedy)
    elif not isinstance(_read_config(path), dict):
        yield Finding(key, f"{path / 'config.json'} is not JSON", "Copy the model again.")
    for danger in find_dangers(path):
        yield Finding(key, danger.message, danger.remedy)
    if not any(path.glob("*.safetensors")):
        pickled = sorted(file.name for file in (*path.glob("*.bin"), *path.glob("*.pt*")))
        if pickled:
            message = f"{path} holds weights as pickle only ({pickled[0]}), which can run any code"
            yield Finding(key, message, f"Convert them to safetensors. {_WEIGHTS_REMEDY}")
        else:
            yield Finding(key, f"{path} holds no *.safetensors", "Copy the weights there.")


def _float_findings(path: Path, recipe: Recipe) -> Iterator[Finding]:
    working = [step for step in recipe.steps if not isinstance(step, ExportStep)]
    if working and is_quantized(path):
        message = f"{path} holds a quantized model, and {working[0].stage} needs a float one"
        remedy = "Give the float model that it was made from."
        yield Finding(("model", "path"), message, remedy)


def _teacher_findings(index: int, step: QatStep, student: Model) -> Iterator[Finding]:
    """What is wrong with a teacher in a directory, and whether it can teach the model."""
    distill = step.distill
    path = distill.teacher.path if distill is not None and distill.teacher is not None else None
    if distill is None or path is None:
        return
    key: Key = ("steps", index, "distill", "teacher", "path")
    found = list(_model_findings(key, path))
    yield from found
    if found:
        return
    if is_quantized(path):
        remedy = "Give the float model that it was made from."
        yield Finding(key, f"{path} holds a quantized model, and a teacher is a float one", remedy)
    taught = None
    if student.path is not None:
        taught = read_makeup(student.path)
    elif student.tiny is not None:
        taught = tiny_makeup(student.tiny)
    if taught is not None:
        wrong = mismatch(taught, read_makeup(path), hidden_states=distill.hidden_states > 0)
        if wrong is not None:
            yield Finding(key, f"the teacher {wrong.message}", wrong.remedy)


def _size_findings(recipe: Recipe) -> Iterator[Finding]:
    """Lengths that the model has no room for, where its sizes are known."""
    sizes = _sizes(recipe.model)
    longest = sizes.get("max_position_embeddings", sizes.get("n_positions"))
    benchmark = recipe.benchmark
    lengths: dict[Key, int] = {("data", "max_length"): recipe.data.max_length}
    if benchmark is not None:
        lengths["benchmark", "prompt_tokens"] = benchmark.prompt_tokens + benchmark.decode_tokens
    for key, length in lengths.items():
        if isinstance(longest, int) and length > longest:
            message = f"{length} tokens are more than the model's {longest} positions"
            yield Finding(key, message, f"Use at most {longest}.")


def _sizes(model: Model) -> Mapping[str, Any]:
    """The model's dimensions by the names of its config.json; empty for one on the Hub."""
    if model.tiny is not None:
        return model.tiny.model_dump() | {"max_position_embeddings": model.tiny.max_positions}
    config = _read_config(model.path) if model.path is not None else None
    return config if isinstance(config, dict) else {}


def _read_config(path: Path) -> object:
    try:
        return json.loads((path / "config.json").read_bytes())
    except (OSError, ValueError, RecursionError):
        return None


def _is(path: Path, kind: str) -> bool:
    try:
        return path.is_file() if kind == "file" else path.is_dir()
    except OSError:  # a name longer than a path may be
        return False
