"""What the processes of a run tell each other. Every one calls each function, in the same order.

Waiting can be stopped at any moment, and ends when another process has ended.
"""

from __future__ import annotations

import pickle
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar, cast

from quantship.processes import departures, link
from quantship.processes.identity import index, is_first, number

if TYPE_CHECKING:
    import torch

Value = TypeVar("Value")

_SHORTEST_S, _LONGEST_S = 0.001, 0.1
"""Pauses between looks at whether the others have come."""
_LOOK_S = 1.0
"""How often to look whether one of them has left."""


def gathered(value: Value) -> list[Value]:
    """Every process's value, in their order, in all of them.

    Raises:
        QuantshipError: Another process has failed, or was killed.
        KeyboardInterrupt: This process or another one was stopped.
    """
    connected = link.current()
    if connected is None:
        return [value]
    import torch

    packed = torch.frombuffer(bytearray(pickle.dumps(value)), dtype=torch.uint8)
    sizes = [int(one) for one in _all(connected, torch.tensor([len(packed)]))]
    padded = torch.zeros(max(sizes), dtype=torch.uint8)
    padded[: len(packed)] = packed
    found = _all(connected, padded)
    return [
        pickle.loads(one[:size].numpy().tobytes()) for one, size in zip(found, sizes, strict=True)
    ]


def agreed(value: Value) -> Value:
    """The first process's value, in all of them."""
    return cast("Value", gathered(value if is_first() else None)[0])


def meet() -> None:
    """Wait until all processes have come here."""
    gathered(None)


def in_step(work: Callable[[], Value]) -> Value:
    """Do something in every process; where it fails in one, all end of that one's error.

    Raises:
        Exception: As ``work`` does, in the processes where it does.
        QuantshipError: It has failed in another process.
    """
    if link.current() is None:
        return work()
    value, error = None, None
    try:
        value = work()
    except Exception as raised:  # noqa: BLE001 - raised again below
        error = raised
    failed = [one for one in gathered(departures.of(error) if error else None) if one is not None]
    if failed:
        departures.share()
        if error is not None:
            raise error
        raise departures.follow(failed[0])
    return cast("Value", value)


def first_does(work: Callable[[], Value]) -> Value:
    """Let the first process do something alone; its result, or its error, comes to all."""
    return agreed(in_step(lambda: work() if is_first() else cast("Value", None)))


def turns(count: int) -> Iterator[int]:
    """Which pieces of work this process does, from 0 to ``count`` - 1; each goes to one process.

    They begin with one each. Whoever is done takes the next, so that nobody idles for a piece that
    takes long.
    """
    connected = link.current()
    if connected is None:
        yield from range(count)
        return
    connected.rounds += 1
    key = f"quantship/turns/{connected.rounds}"
    turn = index()
    while turn < count:
        yield turn
        try:
            turn = number() - 1 + int(connected.store.add(key, 1))
        except RuntimeError as error:
            raise _broken(error) from error


def _all(connected: link.Link, tensor: torch.Tensor) -> list[torch.Tensor]:
    """A tensor of the same shape from every process."""
    import torch
    from torch import distributed

    found = [torch.empty_like(tensor) for _ in range(number())]
    try:
        work = distributed.all_gather(found, tensor, group=connected.group, async_op=True)
        _wait(work)
        work.wait()
    except RuntimeError as error:
        raise _broken(error) from error
    return found


def _broken(error: RuntimeError) -> BaseException:
    """What to end with where the connection, or the store, is gone."""
    left = departures.cause()
    if left is None:
        message = f"the connection with the other processes has broken: {error}"
        return departures.DepartedError(message, 3)
    return departures.follow(left)


def _wait(work: Any) -> None:
    """Look now and then, since a signal is not heeded inside gloo."""
    pause_s, looked = _SHORTEST_S, time.monotonic()
    while not work.is_completed():
        time.sleep(pause_s)
        pause_s = min(2 * pause_s, _LONGEST_S)
        if time.monotonic() - looked > _LOOK_S:
            looked = time.monotonic()
            left = departures.cause() if departures.any_noted() else None
            if left is not None:
                raise departures.follow(left)
