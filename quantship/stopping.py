"""What becomes of a stop: Ctrl-C, or SIGTERM as ``docker stop``, Kubernetes and schedulers send it.

The first one raises KeyboardInterrupt in the main thread; training puts it off until a checkpoint
is saved (``in_own_time``). But Python looks at signals between its own instructions only, which a
native call, as the product of two large matrices, may keep it from for minutes. So a thread watches
too, and ends the process where a stop stays unanswered, or where a second Ctrl-C shows that
somebody cannot wait. That loses nothing: whatever is finished appears in one rename. It repeats
stops that were lost, too: exceptions in destructors and in native callbacks go nowhere. A second
SIGTERM says nothing new: launchers send it to the processes that are left once one has ended.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Any, NoReturn

EXIT_CODE = 130
MESSAGE = "Interrupted. The same command resumes where it stopped."
GRACE_S = 8.0
"""How long a stop may stay unanswered; engines wait ten seconds before they kill."""
ECHO_S = 2.0
"""A Ctrl-C that follows a stop so soon is the same: a terminal and a launcher both send it."""
LOST_S = 2.0
"""An interrupt that nobody has caught so long after it was raised was lost."""
_POLL_S = 0.05
_SET_PARENT_DEATH_SIGNAL = 1
_SHOW_CURSOR = b"\r\x1b[?25h"


@dataclass
class _State:
    """What is known of a stop.

    Args:
        asked_at: When the first one came, on the monotonic clock.
        raised: Whether it has been raised in the main thread.
        seen_at: When it was last raised there, or something stopped in answer to it.
        caught: Whether what was raised has come to where it is caught.
        told: Whether the user has been told of it.
        answering: Whether something is ending in its own time.
        speaks: Whether this process tells the user.
    """

    asked_at: float | None = None
    raised: bool = False
    seen_at: float | None = None
    caught: bool = False
    told: bool = False
    answering: bool = False
    speaks: bool = True


_state = _State()


def watch(*, speaks: bool = True) -> None:
    """From now on, SIGTERM does what Ctrl-C does, and a stop ends this process within seconds.

    Once for each process, in its main thread; a signal that was ignored before stays ignored.

    Args:
        speaks: Say so when the process is ended without its main thread; one of several does.
    """
    _state.speaks = speaks
    read, write = os.pipe()
    os.set_blocking(write, False)
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _interrupt)
    signal.set_wakeup_fd(write, warn_on_full_buffer=False)
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=_forget)
    threading.Thread(target=_listen, args=(read,), name="stop", daemon=True).start()


def requested() -> bool:
    """Whether a stop has come; whatever fails afterwards may fail because of it."""
    return _state.asked_at is not None


def interrupted() -> bool:
    """Whether a stop was raised in the main thread: native code may turn that into any error."""
    return _state.raised


def caught() -> None:
    """What was raised has come to where it is caught: the process is about to end."""
    _state.caught = True


def told() -> None:
    """The user knows."""
    _state.told = True


def over() -> None:
    """All is done, and the process is about to end: a SIGTERM has nothing to stop any more.

    Taking the interpreter down takes a second, in which it would turn success into a failure.
    """
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


def leave(code: int = EXIT_CODE) -> NoReturn:
    """End the process now, from any thread, and with it all that it has started.

    Taking an interpreter with all of these libraries down in good order takes seconds.
    """
    import psutil

    with contextlib.suppress(psutil.Error):
        for child in psutil.Process().children(recursive=True):
            with contextlib.suppress(psutil.Error):
                child.kill()
    with contextlib.suppress(OSError, ValueError):
        if sys.stderr.isatty():
            os.write(2, _SHOW_CURSOR)  # which progress bars hide
        if _state.speaks and not _state.told and code == EXIT_CODE:
            os.write(2, f"{MESSAGE}\n".encode())
    os._exit(code)


def end_with_parent() -> None:
    """Have the system end this process when the one that has started it ends, even if killed."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_SET_PARENT_DEATH_SIGNAL, signal.SIGKILL)


@contextmanager
def in_own_time() -> Iterator[threading.Event]:
    """An event that the first stop sets, for work that ends by itself soon after.

    A second Ctrl-C does what a first one did before. Works without ``watch`` as well, and does
    nothing outside the main thread.
    """
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked
        return
    before: dict[int, Any] = {}
    first_at = 0.0

    def note(number: int, frame: object) -> None:
        nonlocal first_at
        if not asked.is_set():
            first_at = time.monotonic()
            _ask()
            asked.set()
        elif before[number] is _interrupt:
            return  # the watching thread sees to it
        elif number == signal.SIGINT and time.monotonic() - first_at > ECHO_S:
            signal.signal(number, before[number])
            signal.raise_signal(number)

    _state.answering = True
    try:
        for number in (signal.SIGINT, signal.SIGTERM):
            before[number] = signal.signal(number, note)
        yield asked
    finally:
        for stopper, handler in before.items():
            signal.signal(stopper, handler)
        if asked.is_set():
            _state.seen_at = time.monotonic()
        _state.answering = False


def _ask() -> float:
    """Note that a stop has come; when the first one did."""
    if _state.asked_at is None:
        _state.asked_at = time.monotonic()
    return _state.asked_at


def _interrupt(number: int, frame: FrameType | None) -> None:
    """Raise a stop, where that can get anywhere and has not been done already."""
    _ask()
    if _is_on_its_way() or _is_in_destructor(frame):
        return  # the watching thread repeats it where that is needed
    _state.raised, _state.seen_at = True, time.monotonic()
    raise KeyboardInterrupt


def _is_on_its_way() -> bool:
    seen_at = _state.seen_at
    return _state.caught or (seen_at is not None and time.monotonic() - seen_at < LOST_S)


def _is_in_destructor(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_name == "__del__":
            return True
        frame = frame.f_back
    return False


def _listen(pipe: int) -> None:
    """Note stops as the system delivers them, whatever the main thread is doing."""
    while True:
        for number in os.read(pipe, 64):
            if number not in (signal.SIGINT, signal.SIGTERM):
                continue
            asked_at = _ask()
            if number == signal.SIGINT and time.monotonic() - asked_at > ECHO_S:
                leave()
            if not any(thread.name == "grace" for thread in threading.enumerate()):
                threading.Thread(target=_expire, name="grace", daemon=True).start()


def _expire() -> None:
    """Repeat a stop that was lost, and end the process where nothing else has in time."""
    since = time.monotonic()
    while time.monotonic() - since < GRACE_S:
        time.sleep(_POLL_S)
        if _state.answering:
            since = time.monotonic()
        elif not _is_on_its_way() and signal.getsignal(signal.SIGTERM) is _interrupt:
            # Not SIGINT, of which a second one counts.
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGTERM)
    leave()


def _forget() -> None:
    """A forked child hears of stops as any process does, and writes to no pipe of its parent's."""
    global _state
    _state = _State()
    signal.set_wakeup_fd(-1)
    for number, handler in (
        (signal.SIGINT, signal.default_int_handler),
        (signal.SIGTERM, signal.SIG_DFL),
    ):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, handler)
