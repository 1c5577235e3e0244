"""One call of a block, seen from inside: what its layers read, and in which order they run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from quantship.quant.layers import is_linear

if TYPE_CHECKING:
    from quantship.algorithms.block import Block

Change = Callable[[Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class Seen:
    """What a call showed; modules by their names in the block.

    Args:
        hidden: What the block was called with.
        output: What it returned.
        inputs: Input of each linear layer, in the order in which they ran.
        groups: The linear layers by input: those of one tensor together.
        norms: For a linear layer that reads what a norm returned, the norm.
        calls: Arguments of these norms.
    """

    hidden: Tensor
    output: Tensor
    inputs: Mapping[str, Tensor]
    groups: tuple[tuple[str, ...], ...]
    norms: Mapping[str, str]
    calls: Mapping[str, tuple[tuple[Any, ...], Mapping[str, Any]]]

    def before(self, name: str) -> list[str]:
        """The linear layers that began before a layer, the last one first."""
        names = list(self.inputs)
        return names[: names.index(name)][::-1]


def watch(block: Block) -> Seen:
    """Run the first call of a block and note what its linear layers and norms see."""
    inputs: dict[str, Tensor] = {}
    made: dict[str, Tensor] = {}  # kept, so that no memory is used again
    calls: dict[str, tuple[tuple[Any, ...], Mapping[str, Any]]] = {}

    def note_input(name: str, args: tuple[Any, ...]) -> None:
        inputs.setdefault(name, args[0])

    def note_norm(name: str, args: tuple[Any, ...], kwargs: Any, output: Any) -> None:
        if name not in calls and isinstance(output, Tensor):
            made[name], calls[name] = output, (args, kwargs)

    with ExitStack() as stack:
        for name, module in block.module.named_modules():
            if is_linear(module):
                handle = module.register_forward_pre_hook(
                    lambda module, args, name=name: note_input(name, args)
                )
                stack.callback(handle.remove)
            elif _scales_features(module):
                handle = module.register_forward_hook(
                    lambda module, args, kwargs, output, name=name: note_norm(
                        name, args, kwargs, output
                    ),
                    with_kwargs=True,
                )
                stack.callback(handle.remove)
        output = output_of(block)
    norms = {
        name: norm
        for name, input in inputs.items()
        for norm, result in made.items()
        if _is_same(result, input)
    }
    return Seen(
        hidden=block.calls[0].hidden,
        output=output,
        inputs=inputs,
        groups=_groups(inputs),
        norms=norms,
        calls={norm: calls[norm] for norm in norms.values()},
    )


def input_of(block: Block, name: str, changes: Mapping[str, Change]) -> Tensor | None:
    """The input of a layer in the first call, while outputs of other layers are changed.

    Args:
        block: The block.
        name: Of the layer in the block; the call ends there.
        changes: What becomes of outputs, by the name in the block of the layer that makes them.
    """
    found: list[Tensor] = []

    def stop(module: nn.Module, args: tuple[Any, ...]) -> None:
        found.append(args[0])
        raise _Reached

    with changed(block, changes, {}), ExitStack() as stack:
        layer = block.module.get_submodule(name)
        stack.callback(layer.register_forward_pre_hook(stop).remove)
        try:
            output_of(block)
        except _Reached:
            return found[0]
    return None


@contextmanager
def changed(
    block: Block, outputs: Mapping[str, Change], inputs: Mapping[str, Change]
) -> Iterator[None]:
    """Let other numbers than their own leave and reach layers of a block, for a while."""

    def after(change: Change) -> Callable[..., Tensor]:
        return lambda module, args, output: change(output)

    def ahead(change: Change) -> Callable[..., tuple[Any, ...]]:
        return lambda module, args: (change(args[0]), *args[1:])

    with ExitStack() as stack:
        for name, change in outputs.items():
            handle = block.module.get_submodule(name).register_forward_hook(after(change))
            stack.callback(handle.remove)
        for name, change in inputs.items():
            handle = block.module.get_submodule(name).register_forward_pre_hook(ahead(change))
            stack.callback(handle.remove)
        yield


def output_of(block: Block) -> Tensor:
    """What the block makes of its first call; of several results the first tensor."""
    output: Any = block.run(block.calls[0])
    return output if isinstance(output, Tensor) else output[0]


def _groups(inputs: Mapping[str, Tensor]) -> tuple[tuple[str, ...], ...]:
    groups: list[list[str]] = []
    for name, input in inputs.items():
        group = next((one for one in groups if _is_same(inputs[one[0]], input)), None)
        if group is None:
            groups.append([name])
        else:
            group.append(name)
    return tuple(tuple(group) for group in groups)


def _scales_features(module: nn.Module) -> bool:
    """Whether a module may be a norm with a weight of its own: a number for each feature."""
    weight = module._parameters.get("weight")
    return weight is not None and weight.dim() == 1


def _is_same(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors are one, up to their shape."""
    return one.data_ptr() == other.data_ptr() and one.numel() == other.numel()


class _Reached(Exception):
    """The layer was reached."""
