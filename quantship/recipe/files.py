"""Whether the files a recipe names are there, and whether its numbers fit the model they hold."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from quantship.data import Source, local_files
from quantship.quant.scheme import SCHEMES
from quantship.recipe.language import Model, QatStep, QuantizeStep, Recipe
from quantship.recipe.resolve import Finding
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
    if recipe.model.path is not None:
        yield from _model_findings(recipe.model.path)
    yield from _size_findings(recipe)


def _source_findings(key: Key, source: Source) -> Iterator[Finding]:
    for file in local_files(source):
        if not _is(file, "file"):
            what = "is a directory" if _is(file, "dir") else "no such file"
            remedy = f"Give a file; paths start from the current directory, {Path.cwd()}."
            yield Finding((*key, "path"), f"{what}: {file}", remedy)


def _model_findings(path: Path) -> Iterator[Finding]:
    key = ("model", "path")
    if not _is(path, "dir"):
        what = "is a file, not a model directory" if _is(path, "file") else "no such directory"
        remedy = "Give the directory that holds config.json, or a Hub id as model.hub."
        yield Finding(key, f"{what}: {path}", remedy)
        return
    if not _is(path / "config.json", "file"):
        remedy = "Give a directory that save_pretrained wrote."
        yield Finding(key, f"{path} holds no config.json", remedy)
    elif not isinstance(_read_config(path), dict):
        yield Finding(key, f"{path / 'config.json'} is not JSON", "Copy the model again.")
    if not any(path.glob("*.safetensors")):
        pickled = sorted(file.name for file in (*path.glob("*.bin"), *path.glob("*.pt*")))
        if pickled:
            message = f"{path} holds weights as pickle only ({pickled[0]}), which can run any code"
            yield Finding(key, message, f"Convert them to safetensors. {_WEIGHTS_REMEDY}")
        else:
            yield Finding(key, f"{path} holds no *.safetensors", "Copy the weights there.")


def _size_findings(recipe: Recipe) -> Iterator[Finding]:
    """Lengths and group sizes that the model has no room for, where its sizes are known."""
    sizes = _sizes(recipe.model)
    longest = sizes.get("max_position_embeddings")
    benchmark = recipe.benchmark
    lengths: dict[Key, int] = {("data", "max_length"): recipe.data.max_length}
    if benchmark is not None:
        lengths["benchmark", "prompt_tokens"] = benchmark.prompt_tokens + benchmark.decode_tokens
    for key, length in lengths.items():
        if isinstance(longest, int) and length > longest:
            message = f"{length} tokens are more than the model's {longest} positions"
            yield Finding(key, message, f"Use at most {longest}.")
    for index, step in enumerate(recipe.steps):
        scheme = (
            SCHEMES.get(step.scheme or "") if isinstance(step, QatStep | QuantizeStep) else None
        )
        group = scheme.weight.group_size if scheme else None
        for name in ("hidden_size", "intermediate_size"):
            width = sizes.get(name)
            if group and isinstance(width, int) and width % group:
                message = f"groups of {group} do not divide the model's {name} of {width}"
                remedy = "Choose a scheme without groups, or with groups that divide it."
                yield Finding(("steps", index, "scheme"), message, remedy)


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
