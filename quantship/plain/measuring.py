"""Size, speed and memory of one module in this process."""

from __future__ import annotations

import statistics
import time
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree
from torch.utils._python_dispatch import TorchDispatchMode

from quantship.plain.files import flattened
from quantship.quant.modules import FakeQuantModule


def stored_bytes(module: nn.Module) -> int:
    """Bytes of parameters and buffers as ``save`` writes them; fake-quantized ones are floats."""
    if any(isinstance(one, FakeQuantModule) for one in module.modules()):
        return held_bytes(module)
    tensors, _ = flattened(module)
    return sum(tensor.nbytes for tensor in tensors.values())


def held_bytes(module: nn.Module) -> int:
    """Bytes of parameters and buffers in memory, what is shared counted once."""
    tensors = [*module.parameters(), *module.buffers()]
    parts = {id(part): part.nbytes for tensor in tensors for part in _parts(tensor)}
    return sum(parts.values())


def latencies_ms(runs: Sequence[Callable[[], object]], rounds: int) -> list[float]:
    """Median time of each of some functions, run in turns after one turn to warm up.

    In turns, so that a slow moment of the machine falls on all of them.
    """
    times_ms: list[list[float]] = [[] for _ in runs]
    for turn in range(rounds + 1):
        for run, kept in zip(runs, times_ms, strict=True):
            _wait()
            began = time.perf_counter()
            run()
            _wait()
            if turn:
                kept.append(1000 * (time.perf_counter() - began))
    return [statistics.median(kept) for kept in times_ms]


def peak_allocated_bytes(run: Callable[[], object]) -> int:
    """Most bytes of tensors that a run has made and not yet let go of, at any moment of it."""
    run()  # what is allocated once and kept is no part of a run
    with _Allocations() as allocations:
        run()
    peak: int = allocations.peak
    return peak


class _Allocations(TorchDispatchMode):
    """Counts the memory of all tensors that operations make while it is on."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.peak = 0
        self._live: dict[int, int] = {}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        given = {storage._cdata for storage in _storages((args, kwargs))}
        made = func(*args, **(kwargs or {}))
        for storage in _storages(made):
            key = storage._cdata
            if key not in given and key not in self._live:  # else it is a view, or the same again
                self._live[key] = storage.nbytes()
                weakref.finalize(storage, self._live.pop, key, None)
        self.peak = max(self.peak, sum(self._live.values()))
        return made


def _storages(values: Any) -> list[torch.UntypedStorage]:
    leaves = _pytree.tree_leaves(values)
    return [leaf.untyped_storage() for leaf in leaves if type(leaf) in (Tensor, nn.Parameter)]


def first_sample(batch: Any) -> Any:
    """The first sample of a batch: of every tensor in it the first row."""
    return _pytree.tree_map_only(
        Tensor, lambda tensor: tensor[:1] if tensor.dim() else tensor, batch
    )


def num_samples(batch: Any) -> int:
    """Rows of the first tensor of a batch."""
    tensors = [leaf for leaf in _pytree.tree_leaves(batch) if isinstance(leaf, Tensor)]
    return len(tensors[0])


def _parts(tensor: Tensor) -> list[Tensor]:
    """The plain tensors that hold a tensor's numbers: a torchao tensor has several."""
    flatten = getattr(tensor, "__tensor_flatten__", None)
    if flatten is None or type(tensor.data) is Tensor:
        return [tensor]
    names, _ = tensor.data.__tensor_flatten__()  # type: ignore[attr-defined]
    return [getattr(tensor.data, name) for name in names]


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
