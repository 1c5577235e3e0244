"""Go through a model one block at a time, and through each with what reaches it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

from quantship.algorithms.block import Block, Call
from quantship.blocks import frame
from quantship.blocks.mapped import give_back_heap
from quantship.blocks.opening import Opened, copied
from quantship.errors import QuantshipError
from quantship.quant import layers
from quantship.quant.scheme import LayerFormat

Batch = Mapping[str, Tensor]
"""What a model is called with, by name: one calibration sequence."""


def blocks(
    opened: Opened,
    formats: Mapping[str, LayerFormat],
    batches: Sequence[Batch] = (),
    *,
    ends: Mapping[str, nn.Module] | None = None,
    device: torch.device | str = "cpu",
    corrects_bias: bool = False,
) -> Iterator[Block]:
    """The blocks of a model one after the other, copied to float32, and at the end its tail.

    When the next one is asked for, the calls of the one before run through it as it then is, and
    what leaves it reaches the next; it is emptied, and its pages of the file are given back.

    Args:
        opened: The model, which is not changed.
        formats: Format of each layer to quantize, by its name in the model. Token embedding and
            output head are left out: they are in ``ends``.
        batches: Calibration sequences; none where no data is needed, and blocks have no calls then.
        ends: Modules by name to put in place of the token embedding and the output head; else they
            are in float.
        device: Where the blocks run.
        corrects_bias: See ``Block``.

    Yields:
        Blocks by name, and the tail, whose name is empty: the model but for its blocks, with its
        layers that are in none. It has a call for each batch, and ``run`` gives the logits. A
        model whose blocks do not run one after the other is a single tail.

    Raises:
        QuantshipError: Activations are NaN or infinite.
    """
    recorded = _record(opened, batches, ends, device) if batches and opened.blocks else None
    names = opened.blocks if recorded is not None or not batches else ()
    alone = Opened(opened.model, names)
    calls = recorded.calls if recorded is not None else [[] for _ in names]
    hidden = recorded.hidden if recorded is not None else []
    for index, name in enumerate(names):
        _require_finite(hidden, f"reach block {name}")
        further, calls[index] = calls[index], []
        module = copied(opened.model.get_submodule(name), device)
        arrived = [Call(one, *rest) for one, rest in zip(hidden, further, strict=True)]
        inside = {key: value for key, value in formats.items() if key.startswith(f"{name}.")}
        block = Block(name, module, inside, arrived, corrects_bias=corrects_bias)
        del module, further
        yield block
        hidden = [block.run(call) for call in arrived]
        # Whoever still holds the block holds nothing more by it.
        block.module, block.calls = nn.Module(), ()
        del arrived
        _require_finite(hidden, f"leave block {name}")
        opened.release(name)
        give_back_heap()
    replay = frame.Replay(len(names), as_tuple=recorded is not None and recorded.as_tuple)
    tail = frame.Tail(frame.build(alone, replay.act, ends, device, whole=formats), replay)
    outside = {
        key: value
        for key, value in formats.items()
        if not any(key.startswith(f"{name}.") for name in names)
    }
    moved = [_moved(batch, device) for batch in batches]
    hidden = hidden if names else [torch.empty(0)] * len(moved)
    arrived = [Call(one, (), batch) for one, batch in zip(hidden, moved, strict=True)]
    yield Block("", tail, outside, arrived, corrects_bias=corrects_bias)
    opened.release()


class _Recorded:
    """Calls of every block but for the hidden states, which are those that reach the first one.

    Args:
        as_tuple: Whether blocks return tuples.
    """

    def __init__(self, num_blocks: int, *, as_tuple: bool) -> None:
        self.as_tuple = as_tuple
        self.hidden: list[Tensor] = []
        self.calls: list[list[tuple[tuple[Any, ...], dict[str, Any]]]] = [
            [] for _ in range(num_blocks)
        ]


def _record(
    opened: Opened,
    batches: Sequence[Batch],
    ends: Mapping[str, nn.Module] | None,
    device: torch.device | str,
) -> _Recorded | None:
    """Run the model on all batches with blocks that note their calls and change nothing.

    Returns:
        None where the blocks do not run one after the other, each on what the one before returns.
    """
    for as_tuple in (False, True):
        recorded = _Recorded(len(opened.blocks), as_tuple=as_tuple)
        recorder = _Recorder(recorded)
        made = frame.build(opened, recorder.act, ends, device)
        if all(recorder.runs(made, _moved(batch, device)) for batch in batches):
            return recorded
    return None


class _Recorder:
    """Stand-ins that note their calls, and see whether they make a chain."""

    def __init__(self, recorded: _Recorded) -> None:
        self._recorded = recorded
        self._next = 0
        self._left: Tensor | None = None

    def act(self, index: int) -> Callable[..., Any]:
        """What stands in for the block of an index."""

        def note(*args: Any, **kwargs: Any) -> Any:
            if not args and "hidden_states" in kwargs:
                args = (kwargs.pop("hidden_states"),)
            follows = index == self._next and args and isinstance(args[0], Tensor)
            if not follows or (index and args[0] is not self._left):
                raise _OutOfOrder
            hidden, *further = args
            if index == 0:
                self._recorded.hidden.append(hidden)
            self._recorded.calls[index].append((tuple(further), kwargs))
            self._left, self._next = hidden, index + 1
            return (hidden,) if self._recorded.as_tuple else hidden

        return note

    @torch.no_grad()
    def runs(self, model: nn.Module, batch: Batch) -> bool:
        """Whether a batch went through all blocks, one after the other and once."""
        self._next, self._left = 0, None
        _, head = layers.ends(model)
        try:
            with ExitStack() as stack:
                if head is not None:  # which may cost more than anything before it
                    stack.callback(head.register_forward_pre_hook(_stop).remove)
                model(**batch)
        except _Stopped:
            pass
        except (_OutOfOrder, ValueError, TypeError):
            return False  # or the model unpacks more of a block's result than there is
        return self._next == len(self._recorded.calls)


def _stop(*given: object) -> None:
    raise _Stopped


class _Stopped(Exception):
    pass


class _OutOfOrder(Exception):
    pass


def _moved(batch: Batch, device: torch.device | str) -> dict[str, Tensor]:
    """A batch where the blocks run, without its labels: nobody asks for a loss."""
    return {name: tensor.to(device) for name, tensor in batch.items() if name != "labels"}


def _require_finite(hidden: Sequence[Tensor], where: str) -> None:
    if not all(bool(torch.isfinite(one).all()) for one in hidden):
        raise QuantshipError(
            f"the activations that {where} are nan or infinite: weights before it are broken or "
            "too large for float32, or the calibration data drives them there"
        )
