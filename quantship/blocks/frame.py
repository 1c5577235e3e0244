"""A model around its blocks: all of it in float32, with something else in the blocks' places."""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from quantship.blocks import ends
from quantship.blocks.opening import Opened, float32_parameters
from quantship.quant import layers


class StandIn(nn.Module):
    """Runs in the place of a block, and has the block's attributes.

    Args:
        original: The block.
        act: What it does when it is called.
    """

    def __init__(self, original: nn.Module, act: Callable[..., Any]) -> None:
        super().__init__()
        self.__dict__["original"] = original
        self.act = act

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Whatever ``act`` makes of the arguments."""
        return self.act(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(self.__dict__["original"], name)


def build(
    opened: Opened,
    act: Callable[[int], Callable[..., Any]],
    replaced: Mapping[str, nn.Module] | None = None,
    device: torch.device | str = "cpu",
    *,
    whole: Collection[str] = (),
) -> nn.Module:
    """A runnable copy of a model without its blocks; it never uses a cache.

    Args:
        opened: The model.
        act: What stands in for the block of an index.
        replaced: Modules by name to put in place of the token embedding and the output head; these
            two share the mapped weights otherwise.
        device: Where it runs.
        whole: Layers that are there in float32 whatever they are.
    """
    model, replaced = opened.model, replaced or {}
    memo: dict[int, object] = {}
    outside = set(map(id, model.parameters()))
    for index, name in enumerate(opened.blocks):
        block = model.get_submodule(name)
        memo[id(block)] = StandIn(block, act(index))
        outside -= set(map(id, block.parameters()))
    embedding, head = layers.ends(model)
    for name, module in model.named_modules():
        if name in whole:
            continue
        if name in replaced:
            memo[id(module)] = replaced[name]
        elif module is embedding and isinstance(module, nn.Embedding):
            memo[id(module)] = ends.Embedding(module, ends.float_rows(module.weight.data))
        elif module is head and type(module) is nn.Linear:
            memo[id(module)] = ends.Head(module, ends.float_product(module.weight.data))
        else:
            continue
        outside.discard(id(module.weight))
    others = (parameter for parameter in model.parameters() if id(parameter) in outside)
    memo.update(float32_parameters(others, device))
    made: Any = copy.deepcopy(model, memo)
    for module in made.to(device).modules():
        config = module.__dict__.get("config")  # a stand-in has its block's, which is not a copy
        if hasattr(config, "use_cache"):
            config.use_cache = False
    runnable: nn.Module = made.eval()
    return runnable


class Tail(nn.Module):
    """What a model does after its blocks: hidden states in, logits out.

    Its layers have the names that they have in the model.

    Args:
        frame: As ``build`` makes it, with ``replay``'s stand-ins.
        replay: Gives the hidden states to the frame.
    """

    def __init__(self, frame: nn.Module, replay: Replay) -> None:
        super().__init__()
        # The very tables: a layer that is set here is set in the frame.
        self._modules = frame._modules
        self._parameters, self._buffers = frame._parameters, frame._buffers
        self.__dict__["frame"] = frame
        self.__dict__["replay"] = replay

    def forward(self, hidden: Tensor, **batch: Any) -> Tensor:
        """Logits.

        Args:
            hidden: What left the last block; not looked at where there are no blocks.
            batch: What the model was called with.
        """
        replay: Replay = self.__dict__["replay"]
        replay.hidden = hidden
        try:
            logits: Tensor = self.__dict__["frame"](**batch).logits
        finally:
            replay.hidden = None
        return logits


class Replay:
    """Stand-ins of which the last one leaves what was given, whatever goes in.

    Args:
        num_blocks: How many there are.
        as_tuple: Whether blocks return tuples.
    """

    def __init__(self, num_blocks: int, *, as_tuple: bool) -> None:
        self._last, self._as_tuple = num_blocks - 1, as_tuple
        self.hidden: Tensor | None = None

    def act(self, index: int) -> Callable[..., Any]:
        """What stands in for the block of an index."""

        def run(*args: Any, **kwargs: Any) -> Any:
            given = args[0] if args else kwargs["hidden_states"]
            result = self.hidden if index == self._last else given
            return (result,) if self._as_tuple else result

        return run
