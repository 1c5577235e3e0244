"""Which file of what was given holds the model, before anything is read."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from quantship.errors import QuantshipError, UsageError

INDEX = "model.safetensors.index.json"
CONFIG = "config.json"
FOREIGN = {
    ".bin": "a PyTorch pickle",
    ".gguf": "a GGUF file",
    ".ort": "ONNX Runtime's own format",
    ".pt": "a PyTorch pickle",
    ".pte": "an ExecuTorch program",
    ".pth": "a PyTorch pickle",
    ".tflite": "a TensorFlow Lite model",
    ".xml": "perhaps an OpenVINO model",
}
"""What else models lie in; none of them is read here."""


@dataclass(frozen=True)
class Found:
    """Where a model lies.

    Args:
        kind: What it is.
        files: The ONNX file, or all safetensors files of one model.
        config: Its ``config.json``, where it has one.
        directory: The directory that was given, or None for a file.
    """

    kind: Literal["onnx", "safetensors"]
    files: tuple[Path, ...]
    config: Path | None
    directory: Path | None


def locate(path: Path) -> Found:
    """Find the model of a file or directory.

    Raises:
        UsageError: There is no such path, no model in it, or more than one.
        QuantshipError: A shard of a checkpoint is missing, or its index is broken.
    """
    if not path.exists():
        raise UsageError(f"there is no {path}")
    return _in_directory(path) if path.is_dir() else _of_file(path)


def _of_file(path: Path) -> Found:
    if path.suffix == ".onnx":
        return Found("onnx", (path,), _config(path), None)
    if path.suffix == ".safetensors":
        return Found("safetensors", (path,), _config(path), None)
    if path.name.endswith(".safetensors.index.json"):
        return Found("safetensors", _shards(path), _config(path), None)
    what = FOREIGN.get(path.suffix, "neither ONNX nor safetensors by its name")
    raise UsageError(
        f"{path} is {what}; inspect reads .onnx and .safetensors files and directories of them"
    )


def _in_directory(path: Path) -> Found:
    # transformers.js looks for models in a folder "onnx" beside the tokenizer.
    onnx = sorted(path.glob("*.onnx")) + sorted(path.glob("onnx/*.onnx"))
    weights = sorted(path.glob("*.safetensors"))
    if onnx and weights:
        raise UsageError(
            f"{path} holds both a checkpoint and ONNX; name the one that you mean:"
            f"\n    {weights[0]}" + "".join(f"\n    {one}" for one in onnx)
        )
    if len(onnx) > 1:
        listed = "".join(f"\n    {one}" for one in onnx)
        raise UsageError(f"{path} holds {len(onnx)} ONNX models; name the one you mean:{listed}")
    if onnx:
        return Found("onnx", tuple(onnx), _config(onnx[0]), path)
    if weights:
        return Found("safetensors", _weights(path, weights), _config(weights[0]), path)
    others = [file.name for suffix in FOREIGN for file in sorted(path.glob(f"*{suffix}"))]
    hint = f"; what it holds, as {others[0]}, is not read here" if others else ""
    raise UsageError(f"{path} holds neither *.onnx nor *.safetensors{hint}")


def _weights(path: Path, weights: list[Path]) -> tuple[Path, ...]:
    index = path / INDEX
    if index.exists():
        return _shards(index)
    whole = [file for file in weights if file.name == "model.safetensors"]  # not adapters beside it
    return tuple(whole or weights)


def _shards(index: Path) -> tuple[Path, ...]:
    try:
        names = sorted(set(json.loads(index.read_text())["weight_map"].values()))
    except (ValueError, KeyError, AttributeError) as error:
        raise QuantshipError(f"{index} is no index of a sharded checkpoint") from error
    files = tuple(index.parent / name for name in names)
    missing = [file.name for file in files if not file.exists()]
    if missing:
        raise QuantshipError(
            f"{index} names {len(files)} files, of which {len(missing)} are missing: "
            f"{', '.join(missing[:3])}"
        )
    return files


def _config(weights: Path) -> Path | None:
    folder = weights.parent.parent if weights.parent.name == "onnx" else weights.parent
    config = folder / CONFIG
    return config if config.exists() else None
