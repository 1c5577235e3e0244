"""What happens in the other processes, told in the first one while it happens."""

from __future__ import annotations

import pickle
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TypeVar

from quantship.processes import link
from quantship.processes.identity import is_first

Item = TypeVar("Item")

_COUNT, _ITEM = "quantship/news", "quantship/news/{}"
_POLL_S = 0.2


@contextmanager
def told(listen: Callable[[Item], None]) -> Iterator[Callable[[Item], None]]:
    """What to tell news to: the first process's ``listen`` hears that of all while this runs.

    It hears them in the order in which they were told, from a thread of its own where they come
    from another process.
    """
    connected = link.current()
    if connected is None:
        yield listen
    elif not is_first():
        yield lambda item: _send(connected, item)
    else:
        reader = _Reader(connected, listen)
        thread = threading.Thread(target=reader.run, name="news", daemon=True)
        thread.start()
        try:
            yield listen
        finally:
            reader.stop.set()
            thread.join()
            with suppress(RuntimeError):  # the store is gone, and with it what nobody has read
                reader.read()


class _Reader:
    """Reads what others have sent, one after the other, for as long as a round takes."""

    _next = 1  # of all readers: the keys of a run are counted through

    def __init__(self, connected: link.Link, listen: Callable[[Item], None]) -> None:
        self.stop = threading.Event()
        self._connected = connected
        self._listen = listen

    def run(self) -> None:
        with suppress(RuntimeError):
            while not self.stop.wait(_POLL_S):
                self.read()

    def read(self) -> None:
        store = self._connected.store
        while store.check([key := _ITEM.format(_Reader._next)]):
            item = pickle.loads(store.get(key))
            store.delete_key(key)
            _Reader._next += 1
            self._listen(item)


def _send(connected: link.Link, item: Item) -> None:
    with suppress(RuntimeError):  # who was to hear it is gone; the next meeting says so
        number = int(connected.store.add(_COUNT, 1))
        connected.store.set(_ITEM.format(number), pickle.dumps(item))
