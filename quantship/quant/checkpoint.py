"""A checkpoint on disk: the one place where integers meet a file.

A checkpoint is an ordinary Hugging Face directory with a ``TorchAoConfig``. The codes are put into
torchao's tensors as they are, so nothing is rounded on the way. A tied embedding and head are one
tensor in the file: ``save_pretrained`` would write it twice and then fail to load (torchao's tensor
has no ``aten.equal``), so the file is written here.
"""

from __future__ import annotations

import json
import re
from collections import OrderedDict
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import safe_open

from quantship.quant.container import write
from quantship.quant.layers import ends, is_linear, is_tied, is_transposed
from quantship.quant.numerics import Codes, Grid
from quantship.quant.on_demand import OnDemand
from quantship.quant.scheme import LayerFormat
from quantship.quant.tensors import StoredCodes, config_of, decode, encode
from quantship.reading import reading

if TYPE_CHECKING:
    from transformers import PreTrainedModel

WEIGHTS = "model.safetensors"
TENSOR_NAMES = "tensor_names"
"""Entry of the file's metadata that lists its tensors; each has an entry of its own."""
TRANSPOSED = "transposed"
"""Entry of the file's metadata that names the modules whose matrices lie as (in, out) features."""


def save(
    model: PreTrainedModel,
    formats: Mapping[str, LayerFormat],
    codes: Mapping[str, Codes],
    grids: Mapping[str, Grid],
    out: Path,
    *,
    packed: bool = True,
) -> None:
    """Write a checkpoint holding these codes; everything else comes from the float model.

    Args:
        model: The model (its fake-quantized layers count as the layers they replace).
        formats: Module name to format, as ``layers.formats`` names them.
        codes: Module name to codes, for each of them.
        grids: Module name to the grid of its static input range, where it has one.
        out: Existing directory.
        packed: Two 4-bit codes a byte where torchao has a tensor for it; else one code a byte,
            which runs on a CPU without quantship.
    """
    assert formats.keys() == codes.keys()
    tensors: dict[str, torch.Tensor] = {}
    for name, tensor in state(model).items():
        module = name.removesuffix(".weight")
        if module in formats:
            tensors[name] = encode(
                codes[module],
                formats[module],
                grids.get(module),
                packed=packed,
                transposed=is_transposed(model.get_submodule(module)),
            )
        else:
            tensors[name] = tensor.detach()
    flat, metadata = flatten(tensors)
    transposed = [name for name in formats if is_transposed(model.get_submodule(name))]
    write(out / WEIGHTS, flat, metadata | kept_metadata(transposed))
    save_config(model, formats, out, packed=packed)


def save_config(
    model: PreTrainedModel, formats: Mapping[str, LayerFormat], out: Path, *, packed: bool
) -> None:
    """Write what a checkpoint has beside its weights; see ``save``."""
    config = model.config.to_dict()
    config.pop("_name_or_path", None)  # a path of the machine it was made on
    config["architectures"] = [type(model).__name__]
    config["quantization_config"] = torchao_config(model, formats, packed=packed).to_dict()
    (out / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
    if model.can_generate():
        model.generation_config.save_pretrained(out)


def flatten(
    tensors: Mapping[str, torch.Tensor],
) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Tensors as a file holds them, torchao's in parts, and what its metadata says of them."""
    from torchao.prototype.safetensors.safetensors_support import flatten_tensor_state_dict

    flat, metadata = flatten_tensor_state_dict(dict(tensors))
    return flat, metadata


def kept_metadata(transposed: Sequence[str]) -> dict[str, str]:
    """What a file's metadata says beside its tensors.

    Args:
        transposed: Modules whose matrices lie as (in, out) features.
    """
    return {"format": "pt", TRANSPOSED: json.dumps(list(transposed))}


def tensor_names(metadata: Mapping[str, str]) -> list[str]:
    """Names of a file's tensors, before torchao's were taken apart, in the order of the model."""
    names: list[str] = json.loads(metadata.get(TENSOR_NAMES, "[]"))
    return names


def load_codes(checkpoint: Path) -> dict[str, StoredCodes]:
    """All quantized matrices of a checkpoint, by module name, straight from its file.

    Raises:
        QuantshipError: The file is broken.
    """
    with reading(checkpoint / WEIGHTS):
        return {stored.name: stored for stored in read_codes(checkpoint / WEIGHTS)}


def codes_on_demand(checkpoint: Path) -> Mapping[str, Codes]:
    """Codes of a checkpoint by module name, read when they are asked for and not kept.

    Raises:
        QuantshipError: The file is broken; also where codes are asked for.
    """
    with reading(checkpoint / WEIGHTS):
        with safe_open(checkpoint / WEIGHTS, framework="pt") as opened:
            metadata = opened.metadata() or {}
        names = [
            name.removesuffix(".weight")
            for name in tensor_names(metadata)
            if json.loads(metadata[name])["_type"] != "Tensor"
        ]

    def read(name: str) -> Codes:
        with reading(checkpoint / WEIGHTS):
            (stored,) = read_codes(checkpoint / WEIGHTS, only={name})
        return stored.codes

    return OnDemand(names, read)


def read_codes(file: Path, only: Collection[str] | None = None) -> Iterator[StoredCodes]:
    """The quantized matrices of a safetensors file, one after the other.

    Args:
        file: Checkpoint, or part of one.
        only: Names of the modules to read; default: all.
    """
    with safe_open(file, framework="pt") as opened:
        metadata = opened.metadata() or {}
        present = set(opened.keys())
        transposed = json.loads(metadata.get(TRANSPOSED, "[]"))
        for name in tensor_names(metadata):
            entry, module = json.loads(metadata[name]), name.removesuffix(".weight")
            if entry["_type"] == "Tensor" or (only is not None and module not in only):
                continue

            def read(part: str, module: str = module) -> torch.Tensor | None:
                key = f"{module}._weight_{part}"
                return opened.get_tensor(key) if key in present else None

            yield decode(
                module, entry["_type"], entry["_data"], read, transposed=module in transposed
            )


def state(model: PreTrainedModel) -> dict[str, torch.Tensor]:
    """The model's own state, without what is tied to it and what rounding has added."""
    skip = set(getattr(model, "_tied_weights_keys", None) or ()) if is_tied(model) else set()
    return {
        name: tensor
        for name, tensor in model.state_dict().items()
        if name not in skip and not {"rounding", "input_rounding"} & set(name.split("."))
    }


def torchao_config(
    model: PreTrainedModel, formats: Mapping[str, LayerFormat], *, packed: bool
) -> Any:
    """The TorchAoConfig that makes transformers and torchao expect just these tensors."""
    from torchao.quantization import FqnToConfig
    from transformers import TorchAoConfig

    inner = {id(module) for module in ends(model)}
    at_ends = {name for name, module in model.named_modules() if id(module) in inner}
    kinds: dict[str, list[str]] = {}
    known: dict[str, Any] = {}
    for name, module in model.named_modules():
        if name not in formats and (name in at_ends or not is_linear(module)):
            continue
        config = config_of(formats[name], packed=packed) if name in formats else None
        known.setdefault(repr(config), config)
        kinds.setdefault(repr(config), []).append(name)
    configs: OrderedDict[str, Any] = OrderedDict(
        (pattern, known[kind])
        for kind, names in kinds.items()
        for pattern in _patterns(
            names, [one for other in kinds if other != kind for one in kinds[other]]
        )
    )
    return TorchAoConfig(
        FqnToConfig(configs), include_input_output_embeddings=bool(at_ends & formats.keys())
    )


def _patterns(names: list[str], others: list[str]) -> list[str]:
    """What names some modules in a configuration: one expression, where no other layer fits it."""
    last = sorted({name.rsplit(".", 1)[-1] for name in names})
    expression = rf"(.*\.)?({'|'.join(map(re.escape, last))})"
    if any(re.fullmatch(expression, other) for other in others):
        return names
    return [f"re:{expression}"]
