"""What the folder of a model may not hold: code, and a way to files that lie elsewhere.

Models come from anybody. Weights are read from safetensors alone; what else the JSON files of a
folder could make a library do is found here, before a library sees them. Nothing but JSON is read.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from quantship.errors import QuantshipError

CONFIGS = (
    "config.json",
    "tokenizer_config.json",
    "generation_config.json",
    "processor_config.json",
    "preprocessor_config.json",
)
ADAPTER = "adapter_config.json"
INDEX = "model.safetensors.index.json"
_IMPLEMENTATIONS = (
    *("attn_implementation", "_attn_implementation", "_attn_implementation_internal"),
    *("experts_implementation", "_experts_implementation", "_experts_implementation_internal"),
)
_NO_CODE = (
    "quantship runs no code that comes with a model. Where transformers has the architecture "
    "itself, take auto_map out of a copy of the folder's JSON files; else the model cannot be used."
)
_MOST_BYTES = 2**26
"""No configuration is as long; what is longer is not looked at, and libraries do not read it."""


@dataclass(frozen=True)
class Danger:
    """What must not be in a folder.

    Args:
        message: What is there.
        remedy: What to do about it.
    """

    message: str
    remedy: str


def require_data_only(folder: Path) -> None:
    """Refuse a folder that would run code, or that leads to files of other folders.

    Args:
        folder: A model's; one that is not there passes.

    Raises:
        QuantshipError: With everything that was found.
    """
    found = [f"{one.message}\n    {one.remedy}" for one in find_dangers(folder)]
    if found:
        raise QuantshipError("\n".join(found))


def read_config(folder: Path) -> dict[str, Any]:
    """``config.json`` of a model's folder.

    Raises:
        QuantshipError: There is none, or it is no JSON mapping.
    """
    file = folder / CONFIGS[0]
    try:
        config = json.loads(file.read_bytes())
    except OSError as error:
        raise QuantshipError(f"{file} cannot be read: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise QuantshipError(f"{file} is no JSON: {error}") from error
    if not isinstance(config, dict):
        raise QuantshipError(f"{file} holds no JSON mapping")
    return config


def find_dangers(folder: Path) -> Iterator[Danger]:
    """Code, adapters of other models, and names of files that lie elsewhere."""
    for name in CONFIGS:
        config = _read(folder / name)
        if any(_has_code(one) for one in _mappings(config)):
            message = f"{folder / name} names code of the model's own (auto_map)"
            yield Danger(message, _NO_CODE)
        kernels = [one.get(key) for one in _mappings(config) for key in _IMPLEMENTATIONS]
        if any("/" in text for text in _texts(kernels)):
            message = f"{folder / name} names a kernel to fetch from the Hub, which is code"
            yield Danger(message, "Take it out of a copy of the file.")
        for key, value in config.items():
            stray = key.endswith(("_file", "_files")) and any(map(_leads_away, _texts(value)))
            if stray or (key == "transformers_weights" and any(map(_leads_away, _texts(value)))):
                message = f"{folder / name}: {key} is no name of a file beside it: {value!r:.80}"
                yield Danger(message, "Put the file into the folder, and give its name alone.")
    if (folder / ADAPTER).is_file():
        message = f"{folder} holds an adapter of another model ({ADAPTER})"
        yield Danger(message, "Merge it into its model (peft: merge_and_unload), and give that.")
    weights = _read(folder / INDEX).get("weight_map")
    files = weights.values() if isinstance(weights, dict) else ()
    for name in dict.fromkeys(file for file in files if isinstance(file, str)):
        if _leads_away(name):
            message = f"{folder / INDEX} names weights of elsewhere: {name!r:.80}"
            yield Danger(message, "Put them into the folder, and give their names alone.")


def _has_code(config: dict[str, Any]) -> bool:
    return bool(config.get("auto_map"))


def _mappings(value: Any) -> Iterator[dict[str, Any]]:
    """A mapping and those below it."""
    waiting = [value]
    while waiting:
        one = waiting.pop()
        if isinstance(one, dict):
            yield one
            waiting += one.values()
        elif isinstance(one, list):
            waiting += one


def _texts(value: Any) -> Iterator[str]:
    """A text, and those in lists and mappings."""
    waiting = [value]
    while waiting:
        one = waiting.pop()
        if isinstance(one, str):
            yield one
        elif isinstance(one, list):
            waiting += one
        elif isinstance(one, dict):
            waiting += one.values()


def _leads_away(name: str) -> bool:
    return "/" in name or "\\" in name or name == ".."


def _read(file: Path) -> dict[str, Any]:
    """The mapping of a JSON file; empty where there is none: its reader says what is wrong."""
    try:
        if file.stat().st_size > _MOST_BYTES:
            return {}
        content = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}
