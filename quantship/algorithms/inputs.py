"""What algorithms that move scales know of a layer's input: a sample of it, and its extent."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from quantship.errors import QuantshipError
from quantship.quant import numerics

if TYPE_CHECKING:
    from quantship.algorithms.block import Block
    from quantship.quant.numerics import Grid
    from quantship.quant.scheme import ActivationFormat

SAMPLED_TOKENS = 512
"""Tokens of a layer's input that are kept, evenly from all calls."""


@dataclass
class Inputs:
    """A layer's input (T tokens, I features) over all calls, in float.

    Args:
        tokens_TI: Some tokens, chosen at random, the same number from every call.
        mean_I: Mean size of each feature.
        lowest_I: Least number of each feature.
        highest_I: Greatest number of each feature.
    """

    tokens_TI: Tensor
    mean_I: Tensor
    lowest_I: Tensor
    highest_I: Tensor

    @property
    def reach_I(self) -> Tensor:
        """Greatest size of each feature."""
        return torch.maximum(self.highest_I, -self.lowest_I)

    def divided(self, scale_I: Tensor) -> Inputs:
        """The input when each feature is divided by a positive scale."""
        return Inputs(
            self.tokens_TI / scale_I,
            self.mean_I / scale_I,
            self.lowest_I / scale_I,
            self.highest_I / scale_I,
        )

    def rounded(self, fmt: ActivationFormat | None) -> Tensor:
        """The sample (T, I) as a layer multiplies it whose inputs have a format.

        A static range is taken to hold all that was seen.
        """
        if fmt is None:
            return self.tokens_TI
        grid: Grid | None = None
        if fmt.ranges == "static":
            lowest, highest = self.lowest_I.min().view(1, 1), self.highest_I.max().view(1, 1)
            grid = numerics.input_grid(lowest, highest, fmt)
        return numerics.fake_quantize_input(self.tokens_TI, fmt, grid)


FEW_TOKENS = 16
"""So few tokens say little about an input, and the report says so."""


def remarks(seen: Mapping[str, Inputs]) -> list[str]:
    """What is odd about inputs, by the name of a layer that reads each, for the report."""
    found = []
    for name, one in seen.items():
        dead, num_in = int((one.reach_I == 0).sum()), len(one.reach_I)
        if dead == num_in:
            found.append(f"{name}: all inputs are zero on the calibration data; nothing is scaled")
        elif dead:
            found.append(
                f"{name}: {dead} of {num_in} inputs are zero on the calibration data; these are "
                "not scaled"
            )
        if len(one.tokens_TI) < FEW_TOKENS:
            found.append(f"{name}: calibration data has {len(one.tokens_TI)} tokens for it")
    return found


@torch.no_grad()
def gather(block: Block, names: Iterable[str]) -> dict[str, Inputs]:
    """Look at the inputs of layers in one pass over the calls of a block.

    Args:
        block: The block; its layers run as they stand.
        names: Of the layers in the model.

    Raises:
        QuantshipError: An input is not finite.
        ValueError: No call reaches some layer.
    """
    watched = {name: _Watched(-(-SAMPLED_TOKENS // max(len(block.calls), 1))) for name in names}
    with ExitStack() as stack:
        for name, one in watched.items():
            stack.callback(block.layer(name).register_forward_pre_hook(one.hook).remove)
        for call in block.calls:
            block.run(call)
    return {name: one.result(name) for name, one in watched.items()}


@dataclass
class _Watched:
    per_call: int
    tokens: list[Tensor] = field(default_factory=list)
    num_tokens: int = 0
    total_I: Tensor | None = None
    lowest_I: Tensor | None = None
    highest_I: Tensor | None = None

    def hook(self, module: nn.Module, args: tuple[Any, ...]) -> None:
        input_TI = args[0].reshape(-1, args[0].shape[-1])
        if not len(input_TI):
            return
        generator = torch.Generator().manual_seed(len(self.tokens))
        chosen = torch.randperm(len(input_TI), generator=generator)[: self.per_call]
        self.tokens.append(input_TI[chosen])
        self.num_tokens += len(input_TI)
        self.total_I = _merged(torch.add, self.total_I, input_TI.abs().sum(dim=0))
        self.lowest_I = _merged(torch.minimum, self.lowest_I, input_TI.amin(dim=0))
        self.highest_I = _merged(torch.maximum, self.highest_I, input_TI.amax(dim=0))

    def result(self, name: str) -> Inputs:
        if self.total_I is None or self.lowest_I is None or self.highest_I is None:
            raise ValueError(f"no calibration data reached {name}")
        if not bool(torch.isfinite(self.total_I).all()):
            raise QuantshipError(
                f"calibration data makes the input of {name} infinite or not a number: the "
                "model's weights are broken, or too large for float32"
            )
        mean_I = self.total_I / self.num_tokens
        return Inputs(torch.cat(self.tokens), mean_I, self.lowest_I, self.highest_I)


def _merged(merge: Callable[[Tensor, Tensor], Tensor], one: Tensor | None, new: Tensor) -> Tensor:
    return new if one is None else merge(one, new)
