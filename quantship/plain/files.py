"""A quantized module in one safetensors file, without pickle: save it, and load it again."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from quantship.plain.folding import fold_batch_norms
from quantship.quant.convolution import QuantizedConv2d
from quantship.quant.layers import is_transposed
from quantship.quant.loading import fill_gaps
from quantship.quant.modules import FakeQuantModule
from quantship.quant.tensors import pack_intx
from quantship.reading import reading

PREFIX = "module."
"""torchao's files want a dot in every name, and a module's own parameters have none."""
ALIASES, CONVOLUTIONS = "quantship_aliases", "quantship_convolutions"


def save(module: nn.Module, path: str | Path) -> None:
    """Write a module's parameters and buffers, codes as small as torchao has a tensor for.

    The architecture is not written: ``load_into`` wants a module that has it. Matrices that layers
    share are written once.

    Args:
        module: As ``convert`` returns it; a float module is written as it is.
        path: File to write, as ``model.safetensors``.

    Raises:
        ValueError: The module is fake-quantized, or its state holds more than tensors.
    """
    tensors, metadata = flattened(module)
    save_file(tensors, path, metadata={"format": "pt", **metadata})


def flattened(module: nn.Module) -> tuple[dict[str, Tensor], dict[str, str]]:
    """What ``save`` writes: plain tensors by name, and what makes torchao's tensors of them.

    Raises:
        ValueError: See ``save``.
    """
    from torchao.prototype.safetensors.safetensors_support import flatten_tensor_state_dict
    from torchao.utils import TorchAOBaseTensor

    if any(isinstance(layer, FakeQuantModule) for layer in module.modules()):
        raise ValueError("the module is fake-quantized; save what convert makes of it")
    kept: dict[str, Tensor] = {}
    first: dict[int, str] = {}
    aliases: dict[str, str] = {}
    for name, tensor in module.state_dict(keep_vars=True).items():
        if not isinstance(tensor, Tensor):
            raise ValueError(f"'{name}' is a {type(tensor).__name__}, and only tensors are written")
        if id(tensor) in first:
            aliases[name] = first[id(tensor)]
            continue
        first[id(tensor)] = name
        data = tensor.data if isinstance(tensor, nn.Parameter) else tensor
        is_quantized = isinstance(data, TorchAOBaseTensor)
        kept[PREFIX + name] = pack_intx(data) if is_quantized else data.clone().contiguous()
    flat, metadata = flatten_tensor_state_dict(kept)
    convolutions = {
        name: str(layer.dtype).removeprefix("torch.")
        for name, layer in module.named_modules(remove_duplicate=False)
        if isinstance(layer, QuantizedConv2d)
    }
    return flat, {
        **metadata,
        ALIASES: json.dumps(aliases),
        CONVOLUTIONS: json.dumps(convolutions),
    }


def load_into(module: nn.Module, path: str | Path) -> nn.Module:
    """A module of the same architecture that holds what ``save`` has written.

    Args:
        module: A float module of the architecture that was quantized; it is left as it was.
        path: File that ``save`` wrote.

    Returns:
        The module as it was saved, on the CPU and in evaluation mode.

    Raises:
        ValueError: The file does not fit the module, or ``save`` did not write it.
        QuantshipError: The file is broken.
    """
    with reading(path, passing=(ValueError,)):
        return _loaded_into(module, path)


def _loaded_into(module: nn.Module, path: str | Path) -> nn.Module:
    from torchao.prototype.safetensors.safetensors_support import unflatten_tensor_state_dict

    with safe_open(path, framework="pt") as file:
        metadata = file.metadata() or {}
        flat = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
    if ALIASES not in metadata:
        raise ValueError(f"{path} was not written by quantship.save")
    state, _ = unflatten_tensor_state_dict(flat, metadata)
    state = {name.removeprefix(PREFIX): tensor for name, tensor in state.items()}
    made = copy.deepcopy(module).cpu()
    _put_convolutions(made, state, json.loads(metadata[CONVOLUTIONS]))
    for name, other in json.loads(metadata[ALIASES]).items():
        state[name] = state[other]
    _fill(made, state, path)
    fill_gaps(made)
    return made.requires_grad_(False).eval()


def _put_convolutions(made: nn.Module, state: dict[str, Any], dtypes: dict[str, str]) -> None:
    if dtypes:
        fold_batch_norms(made, inplace=True)
    for name, dtype in dtypes.items():
        layer = _layer(made, name)
        if not isinstance(layer, nn.Conv2d):
            raise ValueError(f"the file has a convolution '{name}', and the module has none there")
        known = getattr(torch, dtype, None)
        if not isinstance(known, torch.dtype):
            raise ValueError(f"the file says of '{name}' that its codes are {dtype!r:.40}")
        quantized = QuantizedConv2d(layer, known, symmetric=f"{name}.input_zero" not in state)
        for part in ("codes", "weight_scale", "input_scale", "input_zero"):
            setattr(quantized, part, state.get(f"{name}.{part}"))
        bias = state.get(f"{name}.bias")
        quantized.bias = None if bias is None else nn.Parameter(bias, requires_grad=False)
        made.set_submodule(name, quantized)


def _fill(made: nn.Module, state: dict[str, Any], path: str | Path) -> None:
    """Put every tensor in its place; what is quantized takes the place of a float parameter."""
    from torchao.utils import TorchAOBaseTensor

    shared: dict[int, nn.Parameter] = {}
    plain: dict[str, Tensor] = {}
    own = made.state_dict(keep_vars=True)
    if own.keys() != state.keys():
        lacking, more = sorted(own.keys() - state.keys()), sorted(state.keys() - own.keys())
        raise ValueError(
            f"{path} is of another architecture: it lacks {', '.join(lacking[:3]) or 'nothing'}, "
            f"and the module lacks {', '.join(more[:3]) or 'nothing'}"
        )
    for name, tensor in state.items():
        if not isinstance(tensor, TorchAOBaseTensor):
            plain[name] = tensor
            continue
        layer_name, _, part = name.rpartition(".")
        layer = _layer(made, layer_name)
        turned = is_transposed(layer)  # `convert` makes a linear layer of it
        shape = own[name].shape[::-1] if turned else own[name].shape
        if tensor.shape != shape:
            raise ValueError(f"'{name}' is {tuple(tensor.shape)} in {path}, not {tuple(shape)}")
        if turned:
            bias = layer.bias
            layer = nn.Linear(shape[1], shape[0], device="meta")
            layer.bias = bias  # type: ignore[assignment]
            made.set_submodule(layer_name, layer)
        parameter = shared.setdefault(id(tensor), nn.Parameter(tensor, requires_grad=False))
        setattr(layer, part, parameter)
    try:
        made.load_state_dict(plain, strict=False)
    except RuntimeError as error:  # says which shapes differ
        raise ValueError(f"{path} is of another architecture: {error}") from error


def _layer(module: nn.Module, name: str) -> nn.Module:
    try:
        return module.get_submodule(name)
    except AttributeError as error:
        raise ValueError(f"the file has a layer '{name}', and the module has none") from error
