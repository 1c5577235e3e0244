"""FSDP2: each process keeps a share of every weight, and gathers a layer's where it computes it.

What is gathered is float32, whatever is computed with: fake quantization rounds the very numbers
that are written in the end. A policy that gathered bfloat16 would round rounded numbers.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from quantship import processes
from quantship.quant.compiling import blocks
from quantship.quant.layers import ends, is_tied

Model = TypeVar("Model", bound=nn.Module)


def lend(model: Model) -> Model:
    """A copy of a model that has the very same parameters, to be sharded in its place."""
    memo: dict[int, Any] = {id(parameter): parameter for parameter in model.parameters()}
    return copy.deepcopy(model, memo)


def shard(model: nn.Module, device: torch.device) -> None:
    """Share a lent model's parameters between the processes, in place.

    The model that it was lent by has none until ``take_back``. Weights in 4 bits stay whole in
    every process: they are frozen, and small.

    Args:
        model: On the CPU; what counts is that of the first process.
        device: Where it will compute.
    """
    from torch import distributed
    from torch.distributed.device_mesh import init_device_mesh

    mesh = init_device_mesh(device.type, (processes.number(),))
    whole = set()
    for module in model.modules():
        if any(_is_small(parameter) for parameter in module.parameters(recurse=False)):
            module._apply(lambda tensor: tensor.to(device), recurse=False)
            whole |= {one for one in module.parameters(recurse=False) if _is_small(one)}
    for unit in _units(model):
        given = [one for one in unit.parameters() if not is_shared(one) and one not in whole]
        if not given and unit is not model:
            continue  # a part of another unit
        for tensor in given:  # another kind of machine may have calibrated to other last bits
            tensor.data = tensor.data.to(device)
            distributed.broadcast(tensor.data, 0)
        _fully_shard(unit, mesh, whole)
        for parameter in given:
            parameter.data = parameter.data.new_empty(0)
    for buffer in model.buffers():
        distributed.broadcast(buffer, 0)


def take_back(model: nn.Module, lent: nn.Module) -> None:
    """Give a model the parameters that its sharded copy has trained: in the first process, on CPU.

    All processes take part; in the others the model has no parameters afterwards.
    """
    trained = dict(lent.named_parameters())
    for name, parameter in model.named_parameters():
        if is_shared(trained[name]):
            whole = full(trained[name].detach())
            if processes.is_first():
                parameter.data = whole.cpu()


def full_state(model: nn.Module) -> dict[str, Tensor]:
    """The state dict of a sharded model with whole tensors; of one with adapters, what is trained.

    All processes take part; it is empty but in the first. Tied weights are one tensor, as ever.
    """
    has_adapters = hasattr(model, "peft_config")
    gathered: dict[int, Tensor] = {}
    state = {}
    for name, tensor in model.state_dict(keep_vars=True).items():
        if has_adapters and isinstance(tensor, nn.Parameter) and not tensor.requires_grad:
            continue
        if id(tensor) not in gathered:
            whole = full(tensor.detach())
            gathered[id(tensor)] = whole.cpu() if processes.is_first() else torch.empty(0)
        state[name] = gathered[id(tensor)]
    return state if processes.is_first() else {}


def keep_whole_in_files(optimizer: torch.optim.Optimizer) -> None:
    """Let an optimizer of shared parameters save and load the state that one process would have.

    All processes have to ask for the state together.
    """

    def gather(_: object, state: dict[str, Any]) -> dict[str, Any]:
        whole = {
            index: {name: _in_file(value) for name, value in of.items()}
            for index, of in state["state"].items()
        }
        return {**state, "state": whole}

    def deal(_: object, state: dict[str, Any]) -> dict[str, Any]:
        parameters = [one for group in optimizer.param_groups for one in group["params"]]
        shares = {
            index: {name: _share_as(value, parameters[index]) for name, value in of.items()}
            for index, of in state["state"].items()
        }
        return {**state, "state": shares}

    optimizer.register_state_dict_post_hook(gather)
    optimizer.register_load_state_dict_pre_hook(deal)


class Sharded(nn.Module):
    """A sharded model behind the interface of DistributedDataParallel."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What the model makes of it."""
        return self.module(*args, **kwargs)

    @contextmanager
    def no_sync(self) -> Iterator[None]:
        """Add up gradients in each process, to be reduced after the last micro-batch."""
        self.module.set_requires_gradient_sync(False)  # type: ignore[operator]
        try:
            yield
        finally:
            self.module.set_requires_gradient_sync(True)  # type: ignore[operator]


def keep_frozen_apart(model: nn.Module) -> None:
    """Let DistributedDataParallel leave frozen weights alone, which are the same anyway.

    It would send them all once; of those in 4 bits it would send what they stand for.
    """
    names = [name for name, one in model.named_parameters() if not one.requires_grad]
    # PyTorch's own name for what is not to be sent, as its documentation has it.
    model._ddp_params_and_buffers_to_ignore = names  # type: ignore[assignment]


def is_shared(tensor: Tensor) -> bool:
    """Whether a process has a share of it only."""
    from torch.distributed.tensor import DTensor

    return isinstance(tensor, DTensor)


def full(value: Any) -> Any:
    """A tensor whose shares come from all processes; anything else as it is."""
    from torch.distributed.tensor import DTensor

    return value.full_tensor() if isinstance(value, DTensor) else value


def _units(model: nn.Module) -> list[nn.Module]:
    """What is gathered at once: each decoder layer, an embedding of its own, and all the rest."""
    units = [block for block in blocks(model) if block is not model]
    embedding, _ = ends(model)
    if embedding is not None and not is_tied(model):
        units.append(embedding)
    return [*units, model]


def _fully_shard(module: nn.Module, mesh: Any, whole: set[nn.Parameter]) -> None:
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

    fully_shard(module, mesh=mesh, mp_policy=MixedPrecisionPolicy(), ignored_params=whole)


def _in_file(value: Any) -> Any:
    """What a checkpoint holds: of a shared tensor all, in the first process and off its GPU.

    Whole on every GPU, the moments of a large model would be as much as sharding has saved.
    """
    if not (isinstance(value, Tensor) and is_shared(value)):
        return value
    whole = full(value)
    return whole.cpu() if processes.is_first() else torch.empty(0)


def _is_small(parameter: Tensor) -> bool:
    return hasattr(parameter, "get_original_weight")


def _share_as(value: Any, parameter: Tensor) -> Any:
    """A process's share of a whole tensor, cut as a parameter is."""
    from torch.distributed.tensor import DTensor, distribute_tensor

    if not isinstance(parameter, DTensor) or not isinstance(value, Tensor) or not value.ndim:
        return value
    value = value.to(parameter.device)
    # Every process has read the file: nothing is to be sent.
    return distribute_tensor(value, parameter.device_mesh, parameter.placements, src_data_rank=None)
