"""Checkpoints and plain safetensors files, from their headers and configuration alone."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from quantship.errors import QuantshipError
from quantship.inspection import checkpoint_config as configs
from quantship.inspection import grids, packed_codes, safetensors_header
from quantship.inspection.packed_codes import ALIASES, PREFIX, Packed
from quantship.inspection.report import (
    CheckpointFacts,
    FloatTensor,
    QuantizedTensor,
    Role,
    Use,
)
from quantship.inspection.safetensors_header import Entry

EMBEDDINGS = ("embed", "wte", "wpe", "embeddings")
HEADS = ("lm_head", "embed_out", "score", "classifier")
NORMS = ("norm", "ln_", "ln1", "ln2", "layernorm")
BUFFERS = ("inv_freq", "position_ids", "num_batches_tracked", "cos_cached", "sin_cached")
FLOATS = ("float16", "bfloat16", "float32", "float64")
OWN = ("format", "tensor_names", ALIASES, packed_codes.CONVOLUTIONS, "transposed")
"""Metadata that this room reads; the rest is shown as it is."""


@dataclass(frozen=True)
class Tensors:
    """Everything in the files of one model.

    Args:
        facts: What it says about itself.
        quantized: Its quantized weights; shares of all weight bytes are filled in later.
        floats: Its other parameters.
        metadata: What the files say beside that.
        weight_bytes: All tensors.
        file_bytes: All files.
    """

    facts: CheckpointFacts
    quantized: tuple[QuantizedTensor, ...]
    floats: tuple[FloatTensor, ...]
    metadata: dict[str, str]
    weight_bytes: int
    file_bytes: int


def read(files: tuple[Path, ...], config_file: Path | None) -> Tensors:
    """Read the headers of a model's files.

    Args:
        files: Its safetensors files.
        config_file: Its ``config.json``, where it has one.

    Raises:
        QuantshipError: A file is broken.
    """
    config = configs.read(config_file)
    entries: dict[str, Entry] = {}
    metadata: dict[str, str] = {}
    names: list[str] = []
    for file in files:
        found, said = safetensors_header.read(file)
        entries |= found
        metadata |= said
        names += json.loads(said.get("tensor_names", "[]"))
    if not entries:
        raise QuantshipError(f"{files[0]} holds no tensors")
    metadata["tensor_names"] = json.dumps(names)
    weight_bytes = sum(one.size_bytes for one in entries.values())
    tied = _ties(entries, metadata, config)
    packed = list(packed_codes.find(entries, metadata, configs.quantization(config)))
    taken = {part.name for one in packed for part in one.parts}
    shown = set(OWN) | set(names)
    return Tensors(
        facts=CheckpointFacts(
            architecture=next(iter(config.get("architectures") or ()), None),
            model_type=config.get("model_type"),
            tied=bool(tied),
            quantization=configs.in_words(config) if config else _by_classes(packed),
            files=tuple(file.name for file in files),
        ),
        quantized=tuple(_quantized(one, tied, weight_bytes) for one in packed),
        floats=tuple(
            _float(one, tied, config, quantized=bool(packed))
            for name, one in entries.items()
            if name not in taken and one.dtype in FLOATS and name.rpartition(".")[2] not in BUFFERS
        ),
        metadata={key: value for key, value in metadata.items() if key not in shown},
        weight_bytes=weight_bytes,
        file_bytes=sum(file.stat().st_size for file in files),
    )


def role_of(name: str, shape: tuple[int, ...]) -> Role:
    """What a parameter is for, by its name and shape."""
    parts = name.lower().split(".")
    wide = len(shape) > 1
    if not wide:
        if any(word in part for part in parts[:-1] for word in NORMS):
            return "norm"
        return "bias" if parts[-1] == "bias" else "other"
    if len(shape) > 2:
        return "convolution"
    module = parts[:-1]
    if any(word in part for part in module[-1:] for word in EMBEDDINGS):
        return "embedding"
    return "head" if module and module[-1] in HEADS else "matrix"


def _quantized(one: Packed, tied: Mapping[str, list[str]], weight_bytes: int) -> QuantizedTensor:
    size_bytes = sum(part.size_bytes for part in one.parts)
    layer = one.layer.removeprefix(PREFIX)
    layers = (layer, *tied.get(layer, ()))
    num_parameters = 1
    for size in one.shape:
        num_parameters *= size
    sharing = one.sharing
    return QuantizedTensor(
        layers=layers,
        tensor=one.codes.name,
        uses=tuple(_use(one, name, looks_up=place == 0) for place, name in enumerate(layers)),
        shape=one.shape,
        bits=one.bits,
        container_bits=one.container_bits,
        dtype=one.codes.dtype,
        granularity=sharing.granularity,
        group_size=sharing.group_size,
        symmetric=one.symmetric,
        scale_dtype=one.scale_dtype,
        format=grids.in_words(
            one.bits, one.container_bits, sharing, one.symmetric, one.scale_dtype
        ),
        num_parameters=num_parameters,
        size_bytes=size_bytes,
        bits_per_parameter=8 * size_bytes / max(num_parameters, 1),
        share=size_bytes / weight_bytes,
    )


def _use(one: Packed, name: str, *, looks_up: bool) -> Use:
    role = role_of(f"{name}.weight", one.shape)
    embeds = role == "embedding" and looks_up
    does = "looks up" if embeds else "convolves" if role == "convolution" else "multiplies"
    return Use(
        operator=one.operator,
        node=name,
        does=does,  # type: ignore[arg-type]
        activation="looked up by row" if embeds else one.activation,
        input_dtype=one.input_dtype,
    )


def _float(
    one: Entry, tied: Mapping[str, list[str]], config: Mapping[str, Any], *, quantized: bool
) -> FloatTensor:
    name = one.name.removeprefix(PREFIX)
    role = role_of(name, one.shape)
    layer = name.rpartition(".")[0] if name.endswith(".weight") else name
    return FloatTensor(
        name=one.name,
        layer=" + ".join([layer, *tied.get(layer, ())]),
        role=role,
        dtype=one.dtype,
        shape=one.shape,
        num_parameters=one.size,
        size_bytes=one.size_bytes,
        reason=configs.reason(layer, role, config, quantized=quantized),
    )


def _ties(
    entries: Mapping[str, Entry], metadata: Mapping[str, str], config: Mapping[str, Any]
) -> dict[str, list[str]]:
    """Layers that have no tensor of their own, by the layer whose tensor is theirs."""
    tied: dict[str, list[str]] = {}
    for name, other in json.loads(metadata.get(ALIASES, "{}")).items():
        tied.setdefault(other.rpartition(".")[0], []).append(name.rpartition(".")[0])
    given = config.get("text_config") or {}
    if not (config.get("tie_word_embeddings") or given.get("tie_word_embeddings")):
        return tied
    modules = {module_of(name) for name in entries}
    if any(module.rpartition(".")[2] in HEADS for module in modules):
        return tied
    embedding = next((one for one in modules if one.endswith(("embed_tokens", "wte"))), None)
    if embedding is not None:
        tied.setdefault(embedding, []).append("lm_head")
    return tied


def module_of(name: str) -> str:
    """Module of a tensor, be it one part of a quantized weight."""
    return name.rpartition(".")[0]


def _by_classes(packed: list[Packed]) -> str:
    kinds = dict.fromkeys(one.operator for one in packed)
    return f"torchao: {', '.join(kinds)}" if kinds else "none"
