"""Open a float model without copying it, and find the blocks that run one after the other."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from quantship import models
from quantship.blocks.mapped import release

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class Opened:
    """A float model whose weights are the pages of its file, in the dtype of the file.

    Args:
        model: Not to be written to or run: ``walk`` and ``frame`` copy what they need to float32.
            Its buffers are those of a float32 model.
        blocks: Names of the blocks in the order in which they run; none where there is no list of
            them.
    """

    model: PreTrainedModel
    blocks: tuple[str, ...]

    def release(self, name: str = "") -> None:
        """Give the pages of a block back, or of the whole model."""
        release(parameter.data for parameter in self.model.get_submodule(name).parameters())


def open_model(path: Path) -> Opened:
    """The float model of a directory.

    Raises:
        QuantshipError: The weights are quantized already.
    """
    kind: Any = models.float_class(path)
    dtype = models.file_dtype(path)
    model = kind.from_pretrained(path, dtype=dtype, use_safetensors=True).eval()
    if dtype != torch.float32:
        model = _in_float32_but_for_weights(model)
    return Opened(model, find_blocks(model))


def find_blocks(model: nn.Module) -> tuple[str, ...]:
    """Names of a model's blocks: the items of its largest list of modules made of layers.

    Lists of bare layers do not count, and neither do lists inside a block, or whose items share
    weights.
    """
    lists = [
        (name, module)
        for name, module in model.named_modules()
        if isinstance(module, nn.ModuleList)
        and len(module)
        and all(next(item.children(), None) is not None for item in module)
    ]
    names = [name for name, _ in lists]
    outermost = [
        (name, module)
        for name, module in lists
        if not any(name.startswith(f"{other}.") for other in names)
    ]
    if not outermost:
        return ()
    name, largest = max(outermost, key=lambda one: _size(one[1]))
    uses = Counter(id(parameter) for item in largest for parameter in item.parameters())
    if any(count > 1 for count in uses.values()):
        return ()
    return tuple(f"{name}.{index}" for index in range(len(largest)))


def copied(
    module: nn.Module, device: torch.device | str = "cpu", *, filled: bool = True
) -> nn.Module:
    """A copy of a module to work with: weights in float32, configurations shared.

    Args:
        module: The module.
        device: Where the copy goes.
        filled: Whether its weights are copied; else they are any numbers.
    """
    memo: dict[int, object] = dict(float32_parameters(module.parameters(), device, filled=filled))
    for part in module.modules():
        config = getattr(part, "config", None)
        memo[id(config)] = config
    return copy.deepcopy(module, memo).to(device)


def float32_parameters(
    parameters: Iterable[nn.Parameter], device: torch.device | str, *, filled: bool = True
) -> Iterator[tuple[int, nn.Parameter]]:
    """Copies of parameters in float32, each with the identity of the original; see ``copied``."""
    for parameter in parameters:
        dtype = torch.float32 if parameter.is_floating_point() else parameter.dtype
        if filled:
            made = parameter.detach().to(device, dtype, copy=True)
        else:
            made = torch.empty(parameter.shape, dtype=dtype, device=device)
        yield id(parameter), nn.Parameter(made, requires_grad=False)


def _size(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _in_float32_but_for_weights(mapped: PreTrainedModel) -> PreTrainedModel:
    """The same weights in a model that computes its own constants in float32.

    A model built in bfloat16 rounds some of them, as the scale of Gemma's embedding.
    """
    from accelerate import init_empty_weights

    config = copy.deepcopy(mapped.config)
    for part in (config, *(getattr(config, name, None) for name in config.sub_configs)):
        if part is not None:
            part.dtype = torch.float32
    kind: Any = type(mapped)
    with init_empty_weights(include_buffers=False):
        model: PreTrainedModel = kind(config)
    for name, parameter in mapped.named_parameters(remove_duplicate=False):
        owner, _, leaf = name.rpartition(".")
        model.get_submodule(owner)._parameters[leaf] = parameter
    kept = mapped.state_dict().keys()
    for name, buffer in mapped.named_buffers():
        if name in kept:
            owner, _, leaf = name.rpartition(".")
            model.get_submodule(owner)._buffers[leaf] = _widened(buffer)
    if mapped.can_generate():
        model.generation_config = mapped.generation_config
    model.eval()
    return model


def _widened(buffer: Tensor) -> Tensor:
    return buffer.float() if buffer.is_floating_point() else buffer.clone()
