"""Connect the processes of a run, and part again."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any

from quantship.errors import QuantshipError, UsageError
from quantship.processes import departures, link, meeting
from quantship.processes.identity import index_here, number, require_launched

LONGEST_WAIT = timedelta(days=30)
"""While one process works through a stage alone, the others wait."""
_SLICE_S = 0.1


@contextmanager
def together() -> Iterator[None]:
    """Connect with the other processes while this runs; alone, or connected already, do nothing.

    PyTorch's default group is there afterwards: gloo for the CPU, NCCL for GPUs. Where this ends
    with an error the others are told of it; this process cannot connect a second time then.

    Raises:
        UsageError: The environment is not a launcher's, or there are more processes than GPUs.
        QuantshipError: The processes do not find each other.
    """
    require_launched()
    if number() == 1 or link.established() is not None:
        yield
        return
    _connect()
    try:
        yield
        meeting.meet()
    except BaseException as error:
        if not hasattr(error, "exit_code") or isinstance(error, QuantshipError):
            found = departures.of(error)  # else the command line has told them
            departures.note(found.code, found.message)
        _abort()
        raise
    from torch import distributed

    link.put(None)
    distributed.destroy_process_group()


def _connect() -> None:
    import torch

    if torch.cuda.is_available():  # what calls itself "cuda" from here on is this process's own
        if index_here() >= torch.cuda.device_count():
            raise UsageError(
                f"process {index_here()} of this machine has no GPU: there are "
                f"{torch.cuda.device_count()}, and every process needs one of its own"
            )
        torch.cuda.set_device(index_here())
    _patiently(_open)
    connected = link.established()
    assert connected is not None
    connected.places = tuple(meeting.gathered(link.here()))


def _open() -> None:
    import torch
    from torch import distributed
    from torch.distributed import distributed_c10d

    if not distributed.is_initialized():
        gpus = torch.cuda.is_available()
        distributed.init_process_group("cpu:gloo,cuda:nccl" if gpus else "gloo")
    group = distributed.new_group(backend="gloo", timeout=LONGEST_WAIT)
    link.put(link.Link(distributed_c10d._get_default_store(), group))


def _patiently(work: Callable[[], None]) -> None:
    """Do what blocks in native code in another thread, so that this one can be stopped."""
    errors: list[Exception] = []

    def run() -> None:
        try:
            work()
        except Exception as error:  # noqa: BLE001 - raised below
            errors.append(error)

    thread = threading.Thread(target=run, name="connecting", daemon=True)
    thread.start()
    while thread.is_alive():
        thread.join(_SLICE_S)
    if errors:
        raise QuantshipError(
            f"the {number()} processes do not find each other: {errors[0]}\n"
            "    All machines must reach MASTER_ADDR at MASTER_PORT, and each other; where they "
            "have several networks, GLOO_SOCKET_IFNAME and NCCL_SOCKET_IFNAME say which to use."
        ) from errors[0]


def _abort() -> None:
    """Cut the connections: pending meetings would keep the interpreter from ending."""
    from torch import distributed

    connected = link.established()
    groups: list[Any] = [] if connected is None else [connected.group]
    if distributed.is_initialized():
        groups.append(distributed.group.WORLD)
    for group in groups:
        with suppress(RuntimeError):
            group.abort()
