"""How one process's end becomes the end of all: with one message, and with one exit code.

Who ends early leaves a note for the others first. Who finds that another is gone looks for its
note; where there is none, that one was killed.
"""

from __future__ import annotations

import pickle
import signal
import threading
import time
from contextlib import suppress
from dataclasses import dataclass

from quantship import stopping
from quantship.errors import QuantshipError
from quantship.processes import link
from quantship.processes.identity import index, is_first, number

GRACE_S = 3.0
"""How long to look for the reason of another's end, or of a stop."""
_POLL_S = 0.05
_NOTE, _ANY_NOTE, _VOICE = "quantship/left/{}", "quantship/left", "quantship/voice"


@dataclass(frozen=True)
class Departure:
    """The early end of a process.

    Args:
        index: Which process.
        code: Its exit code.
        message: Why, for the user.
    """

    index: int
    code: int
    message: str


class DepartedError(QuantshipError):
    """An error of another process, which ends this one as well."""

    def __init__(self, message: str, exit_code: int) -> None:
        self.exit_code = exit_code
        super().__init__(message)


_noted = False
_is_shared = False


def share() -> None:
    """The error that this process is about to end of is one that all have: the first one tells."""
    global _is_shared
    _is_shared = True


def of(error: BaseException) -> Departure:
    """What an error means to the other processes."""
    if isinstance(error, KeyboardInterrupt):
        return Departure(index(), stopping.EXIT_CODE, stopping.MESSAGE)
    if isinstance(error, QuantshipError):
        return Departure(index(), error.exit_code, str(error))
    return Departure(index(), 1, f"internal error: {type(error).__name__}: {error}")


def note(code: int, message: str) -> None:
    """Tell the other processes that this one ends, once, and why."""
    global _noted
    connected = link.established()
    if connected is None or _noted:
        return
    _noted = True
    with suppress(RuntimeError):  # the store may be gone with the process that kept it
        value = pickle.dumps(Departure(index(), code, message))
        connected.store.set(_NOTE.format(index()), value)
        connected.store.set(_ANY_NOTE, b"1")


def any_noted() -> bool:
    """Whether a process has ended early."""
    connected = link.established()
    try:
        return connected is not None and bool(connected.store.check([_ANY_NOTE]))
    except RuntimeError:
        return True


def cause(wait_s: float = GRACE_S) -> Departure | None:
    """The end of another process that this one has to end of, or None where all are well.

    Args:
        wait_s: How long to wait for what a process that ends at this moment has to say.
    """
    deadline = time.monotonic() + wait_s
    others = [one for one in range(number()) if one != index()]
    while True:
        gone = [one for one in others if _is_gone(one)]  # before its note is looked for
        notes = {one: found for one in others if (found := _read(one)) is not None}
        for found in notes.values():
            if found.code != stopping.EXIT_CODE:
                return found
        for one in gone:
            if one not in notes:
                return Departure(one, QuantshipError.exit_code, _killed(one))
        if len(notes) == len(others) or time.monotonic() > deadline:
            return next(iter(notes.values()), None)
        time.sleep(_POLL_S)


def follow(found: Departure) -> BaseException:
    """The error to end with where another process has ended."""
    if found.code == stopping.EXIT_CODE:
        return KeyboardInterrupt()
    return DepartedError(found.message, found.code)


def ending(code: int, message: str) -> tuple[int, str | None]:
    """This process ends: with which exit code, and what it says; None: another one speaks.

    Args:
        code: Exit code, were it alone.
        message: What it would say.
    """
    if link.established() is None:
        return code, message if is_first() else None
    _ignore_stops()  # it ends anyway, and has something to say
    note(code, message)
    if code == stopping.EXIT_CODE or stopping.requested():
        found = cause()  # launchers stop what still runs when one process has failed
        if found is not None and found.code != stopping.EXIT_CODE:
            code, message = found.code, found.message
        else:
            code, message = stopping.EXIT_CODE, stopping.MESSAGE
    elif _is_shared and not is_first():
        return code, None
    return code, message if _may_speak() else None


def _read(one: int) -> Departure | None:
    connected = link.established()
    assert connected is not None
    key = _NOTE.format(one)
    try:
        if connected.store.check([key]):
            found: Departure = pickle.loads(connected.store.get(key))
            return found
    except RuntimeError:
        pass
    return None


def _is_gone(one: int) -> bool:
    connected = link.established()
    assert connected is not None
    return one < len(connected.places) and link.is_gone(connected.places[one])


def _killed(one: int) -> str:
    return (
        f"process {one} of {number()} has ended without a word: it was killed, as where memory is "
        "exhausted\n    The same command resumes where it stopped."
    )


def _may_speak() -> bool:
    connected = link.established()
    assert connected is not None
    try:
        return int(connected.store.add(_VOICE, 1)) == 1
    except RuntimeError:
        return True


def _ignore_stops() -> None:
    if threading.current_thread() is threading.main_thread():
        for number_ in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number_, signal.SIG_IGN)
