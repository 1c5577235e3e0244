"""Where models come from and how they are loaded: directories with safetensors, nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from quantship import header, model_folder
from quantship.artifact import Artifact, digest_tree, fingerprint
from quantship.errors import QuantshipError, UsageError
from quantship.reading import reading
from quantship.runtimes.kinds import read_kind

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

HUB_FILES = (
    *("*.json", "*.safetensors", "*.jinja", "*.model", "*.txt"),
    *("LICENSE*", "NOTICE*", "USE_POLICY*", "README.md"),
)


def from_directory(path: Path) -> Artifact:
    """A local Hugging Face directory as an artifact, known by the content of its files.

    Raises:
        QuantshipError: It holds code, or names files of elsewhere.
    """
    resolved = path.resolve()
    model_folder.require_data_only(resolved)
    return Artifact(
        resolved, "model", fingerprint("model", 1, {"content": digest_tree(resolved)}, {}), {}
    )


def from_hub(repo: str, commit: str, *, download: bool) -> Artifact:
    """A Hub model at a commit, downloaded now or, for a plan, not at all.

    Raises:
        UsageError: There are no safetensors in it, or a file's name leads out of the cache.
        QuantshipError: It holds code, or names files of elsewhere.
    """
    path = _downloaded(repo, commit) if download else Path(repo)
    facts = {"hub": repo, "commit": commit}
    return Artifact(path, "model", fingerprint("model", 1, facts, {}), facts)


def _downloaded(repo: str, commit: str) -> Path:
    from huggingface_hub import snapshot_download

    try:
        path = Path(snapshot_download(repo, revision=commit, allow_patterns=list(HUB_FILES)))
    except ValueError as error:  # huggingface_hub's, of names that it will not write
        raise UsageError(f"model '{repo}' cannot be fetched: {error}") from error
    if not any(path.glob("*.safetensors")):
        raise UsageError(
            f"model '{repo}' (commit {commit}) holds no *.safetensors; pickles (.bin, .pt) can run "
            "any code and are not read\n    Load it once with transformers where you trust it, and "
            "write it back: model.save_pretrained(folder, safe_serialization=True)."
        )
    model_folder.require_data_only(path)
    return path


def load_float(path: Path) -> PreTrainedModel:
    """The float model of a directory in float32, on the CPU.

    Raises:
        QuantshipError: The weights are quantized already.
    """
    import torch

    kind = float_class(path)
    with reading(path):
        model: PreTrainedModel = kind.from_pretrained(
            path, dtype=torch.float32, use_safetensors=True
        )
    return model


def float_class(path: Path) -> Any:
    """The class to load a float model by: what its configuration names, or a causal LM.

    Raises:
        QuantshipError: The weights are quantized already.
    """
    import transformers

    from quantship.quant.loading import model_class

    config = read_config(path)
    if "quantization_config" in config:
        raise QuantshipError(f"{path} holds a quantized model; this step needs a float one")
    names = config.get("architectures")
    named = str(names[0]) if isinstance(names, list) and names else ""
    # A bare model has no head, and an old name none of today's classes.
    is_whole = hasattr(transformers, named) and any(word in named for word in ("For", "LMHead"))
    return model_class(path) if classifies(path) or is_whole else transformers.AutoModelForCausalLM


def file_dtype(path: Path) -> torch.dtype:
    """The dtype of all floats in a directory's safetensors files; float32 where they differ."""
    import torch

    known = {"F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16}
    found = {
        entry["dtype"]
        for file in path.glob("*.safetensors")
        for entry in _header(file).values()
        if "F" in entry["dtype"]
    }
    return known.get(found.pop(), torch.float32) if len(found) == 1 else torch.float32


def classifies(path: Path) -> bool:
    """Whether a directory holds a model that tells classes, of samples or of texts."""
    with reading(path / "config.json"):
        return read_kind(path) != "language"


def _has_tokenizer(path: Path) -> bool:
    """Whether the model of a directory reads text."""
    with reading(path / "config.json"):
        return read_kind(path) != "samples"


def pad_token_id(path: Path) -> int:
    """What fills up shorter sequences for the model of a directory."""
    return load_tokenizer(path).pad_token_id or 0 if _has_tokenizer(path) else 0


def copy_tokenizer(source: Path, out: Path) -> None:
    """Write the tokenizer of a directory into another one, where it has one."""
    if _has_tokenizer(source):
        load_tokenizer(source).save_pretrained(out)


def load_tokenizer(path: Path) -> PreTrainedTokenizerBase:
    """The tokenizer of a directory."""
    from transformers import AutoTokenizer

    model_folder.require_data_only(path)
    with reading(path):
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
            path, trust_remote_code=False
        )
    return tokenizer


def read_config(path: Path) -> dict[str, Any]:
    """``config.json`` of a directory.

    Raises:
        QuantshipError: There is none, or it is no JSON mapping.
    """
    return model_folder.read_config(path)


def weight_bytes(path: Path) -> int:
    """Bytes of a model's weights and graph on disk, in safetensors, ONNX or OpenVINO IR."""
    kinds = ("*.safetensors", "*.onnx", "*.onnx_data", "openvino_model.*")
    files = [file for kind in kinds for file in path.glob(kind)]
    return sum(file.stat().st_size for file in files)


def num_parameters(path: Path) -> int:
    """Numbers stored in a directory's safetensors files, from their headers alone."""
    return sum(
        _product(entry["shape"])
        for file in path.glob("*.safetensors")
        for entry in _header(file).values()
    )


def _header(file: Path) -> Mapping[str, Any]:
    entries, _ = header.read(file)
    entries.pop(header.METADATA, None)
    return entries


def _product(shape: list[int]) -> int:
    result = 1
    for size in shape:
        result *= size
    return result
