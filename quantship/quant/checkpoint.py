"""Codes to torchao checkpoint and back: the one place where integers meet a file.

A checkpoint is an ordinary Hugging Face directory with a ``TorchAoConfig``; plain
``AutoModelForCausalLM.from_pretrained`` loads it. The codes are put into torchao's tensors as they
are, so nothing is rounded on the way. A tied embedding and head are one tensor in the file:
``save_pretrained`` would write it twice and then fail to load
(torchao's tensor has no ``aten.equal``), so the file is written here.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from quantship.errors import ParityError
from quantship.quant.modules import formats
from quantship.quant.numerics import Codes
from quantship.quant.scheme import ActivationFormat, Scheme, WeightFormat

if TYPE_CHECKING:
    from transformers import PreTrainedModel

WEIGHTS = "model.safetensors"


@dataclass(frozen=True)
class StoredCodes:
    """One quantized matrix as it lies in a checkpoint.

    Args:
        name: Module it belongs to, as ``model.layers.0.mlp.up_proj``.
        codes: The integers and their scales.
        bits: Bits of one code.
        quantizes_input: Whether the layer's input is quantized for each token when it runs.
    """

    name: str
    codes: Codes
    bits: int
    quantizes_input: bool


def save(model: PreTrainedModel, scheme: Scheme, codes: Mapping[str, Codes], out: Path) -> None:
    """Write a checkpoint holding these codes; everything else comes from the float model.

    Args:
        model: Float model (its fake-quantized layers count as the layers they replace).
        scheme: Scheme that the codes follow.
        codes: Module name to codes, for every module that ``modules.formats`` names.
        out: Existing directory.
    """
    from torchao.prototype.safetensors.safetensors_support import flatten_tensor_state_dict

    found = formats(model, scheme)
    assert found.keys() == codes.keys()
    tensors: dict[str, torch.Tensor] = {}
    skip = set(getattr(model, "_tied_weights_keys", None) or ())
    tied = model.config.get_text_config().tie_word_embeddings
    for name, tensor in model.state_dict().items():
        if tied and name in skip:
            continue
        module = name.removesuffix(".weight")
        if module in found:
            tensors[name] = _torchao_tensor(codes[module], *found[module])
        else:
            tensors[name] = tensor.detach().clone().contiguous()
    flat, metadata = flatten_tensor_state_dict(tensors)
    save_file(flat, out / WEIGHTS, metadata={"format": "pt", **metadata})
    config = model.config.to_dict()
    config.pop("_name_or_path", None)  # a path of the machine it was made on
    config["architectures"] = [type(model).__name__]
    config["quantization_config"] = _torchao_config(model, scheme).to_dict()
    (out / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
    if model.can_generate():
        model.generation_config.save_pretrained(out)


def load_codes(checkpoint: Path) -> dict[str, StoredCodes]:
    """All quantized matrices of a checkpoint, by module name, straight from its file."""
    stored: dict[str, StoredCodes] = {}
    with safe_open(checkpoint / WEIGHTS, framework="pt") as file:
        metadata = file.metadata() or {}
        for name in json.loads(metadata.get("tensor_names", "[]")):
            entry = json.loads(metadata[name])
            if entry["_type"] == "Tensor":
                continue
            module = name.removesuffix(".weight")
            attributes: dict[str, Any] = entry["_data"]
            codes = Codes(
                file.get_tensor(f"{module}._weight_qdata"),
                file.get_tensor(f"{module}._weight_scale"),
            )
            if file.get_tensor(f"{module}._weight_zero_point").any():
                raise ParityError(
                    f"{checkpoint}: '{module}' has zero points; only symmetric codes are lowered"
                )
            stored[module] = StoredCodes(
                name=module,
                codes=codes,
                bits=_bits(attributes["target_dtype"]),
                quantizes_input=attributes["activation_quantization"] is not None,
            )
    return stored


def _torchao_tensor(
    codes: Codes, weight: WeightFormat, activation: ActivationFormat | None
) -> torch.Tensor:
    from torchao.quantization import IntxUnpackedToInt8Tensor

    tensor: torch.Tensor = IntxUnpackedToInt8Tensor(
        qdata=codes.codes_OI,
        scale=codes.scale_OG,
        zero_point=torch.zeros_like(codes.scale_OG, dtype=torch.int8),
        target_dtype=_dtype(weight),
        block_size=(1, codes.codes_OI.shape[1] // codes.scale_OG.shape[1]),
        dtype=codes.scale_OG.dtype,
        activation_quantization=None if activation is None else "int8_asym_per_token",
    )
    return tensor


def _torchao_config(model: PreTrainedModel, scheme: Scheme) -> Any:
    """The TorchAoConfig that makes transformers and torchao expect just these tensors."""
    from torchao.quantization import (
        FqnToConfig,
        Int8DynamicActivationIntxWeightConfig,
        IntxWeightOnlyConfig,
    )
    from transformers import TorchAoConfig

    configs: OrderedDict[str, Any] = OrderedDict()
    for name, (weight, activation) in formats(model, scheme).items():
        if name in _input_and_output_names(model):
            configs[name] = IntxWeightOnlyConfig(_dtype(weight), _granularity(weight))
        elif "_default" not in configs and activation is None:
            configs["_default"] = IntxWeightOnlyConfig(_dtype(weight), _granularity(weight))
        elif "_default" not in configs:
            configs["_default"] = Int8DynamicActivationIntxWeightConfig(
                _dtype(weight), _granularity(weight)
            )
    return TorchAoConfig(
        FqnToConfig(configs), include_input_output_embeddings=scheme.embedding is not None
    )


def _input_and_output_names(model: PreTrainedModel) -> set[str]:
    ends = (model.get_input_embeddings(), model.get_output_embeddings())
    return {name for name, module in model.named_modules() if module in ends}


def _dtype(weight: WeightFormat) -> torch.dtype:
    dtype: torch.dtype = getattr(torch, f"int{weight.bits}")
    return dtype


def _bits(stored: Any) -> int:
    text = stored["_data"] if isinstance(stored, dict) else str(stored)
    return int(text.rsplit("int", 1)[1])


def _granularity(weight: WeightFormat) -> Any:
    from torchao.quantization import PerAxis, PerGroup

    return PerAxis(0) if weight.group_size is None else PerGroup(weight.group_size)
