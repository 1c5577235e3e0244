"""Run a model from one of its blocks on: what comes before is known, and is not run again.

The model's own code does it. Blocks in front are replaced by ones that pass on what they get, and
the block to begin with gets what reached it when the model ran in full; the embedding is looked up
again, which costs next to nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from quantship.blocks.opening import find_blocks

Inputs = Mapping[str, Tensor]
"""Named inputs of the model, one sequence or batch."""


class Replay:
    """A model, the sequences that run through it, and where they are.

    Args:
        model: In evaluation mode; it computes as it stands whenever it runs.
        sequences: Inputs; activations are held at one place for all of them.
        head_positions: Of each sequence, the positions whose logits are wanted; None: all.
    """

    def __init__(
        self,
        model: nn.Module,
        sequences: Sequence[Inputs],
        head_positions: Sequence[Tensor | None],
    ) -> None:
        self.model = model
        self.blocks = [model.get_submodule(name) for name in find_blocks(model)]
        self._sequences = sequences
        self._positions = head_positions
        self._start = 0
        self._hidden: list[Tensor] | None = None

    def restart(self) -> None:
        """Begin at the beginning from now on."""
        self._start, self._hidden = 0, None

    @torch.no_grad()
    def move_to(self, start: int) -> None:
        """Begin at this block from now on; one past the last: behind all of them.

        Args:
            start: Index of a block at or behind the present one. What lies in between runs as the
                model stands now.
        """
        assert start >= self._start
        while self._start < start:
            self._hidden = [self._through(index) for index in range(len(self._sequences))]
            self._start += 1

    @torch.no_grad()
    def logits(self) -> Iterator[Tensor]:
        """Logits (positions, V) of each sequence, from the present block on."""
        for index in range(len(self._sequences)):
            yield self._run(index)

    def _run(self, index: int) -> Tensor:
        with ExitStack() as stack:
            self._skip_to_start(stack, index)
            positions = self._positions[index]
            if positions is not None:
                stack.enter_context(_head_sees_only(self.model, positions))
            logits: Tensor = self.model(**self._sequences[index]).logits
        return logits.flatten(0, -2)

    def _through(self, index: int) -> Tensor:
        """Hidden states behind the block to begin with."""

        def stop(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            raise _Reached(output[0] if isinstance(output, tuple) else output)

        handle = self.blocks[self._start].register_forward_hook(stop)
        try:
            with ExitStack() as stack:
                self._skip_to_start(stack, index)
                self.model(**self._sequences[index])
        except _Reached as reached:
            return reached.hidden
        finally:
            handle.remove()
        raise AssertionError("the block did not run")

    def _skip_to_start(self, stack: ExitStack, index: int) -> None:
        if self._hidden is None:
            return
        hidden = self._hidden[index]
        # The last block that is skipped answers with what is known; those before pass on.
        for block in self.blocks[: self._start - 1]:
            stack.enter_context(_forward(block, lambda given, *args, **kwargs: given))
        last = self.blocks[self._start - 1]
        stack.enter_context(_forward(last, lambda given, *args, **kwargs: hidden))


@contextmanager
def _forward(module: nn.Module, forward: Callable[..., Any]) -> Iterator[None]:
    module.forward = forward
    try:
        yield
    finally:
        del module.forward


@contextmanager
def _head_sees_only(model: Any, positions: Tensor) -> Iterator[None]:
    """Multiply only these positions by the output head, which may cost more than the blocks."""
    head = model.get_output_embeddings()
    handle = head.register_forward_pre_hook(lambda module, args: (args[0][:, positions],))
    try:
        yield
    finally:
        handle.remove()


class _Reached(Exception):
    def __init__(self, hidden: Tensor) -> None:
        self.hidden = hidden
