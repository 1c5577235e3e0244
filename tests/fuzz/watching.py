"""What a reader must not do whatever it reads: fail, run long, take much memory, look elsewhere."""

from __future__ import annotations

import os
import resource
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from quantship.errors import QuantshipError

MOST_SECONDS = 20
MOST_BYTES = 2**31
"""Memory that one example may take beside what the process has."""


class Overtime(BaseException):
    """An example has run for too long; nothing catches it on the way."""


@dataclass(frozen=True)
class Verdict:
    """How an example ended.

    Args:
        outcome: ``read``, ``refused`` (by a clean error) or ``failed``.
        reason: What failed, the same for examples that fail alike; the error where refused.
        trace: Of the failure.
    """

    outcome: str
    reason: str = ""
    trace: str = ""


class Watch:
    """Looks at what is opened, once for a process: an audit hook cannot be taken off again.

    Args:
        outside: Folder that nothing may be read from.
    """

    def __init__(self, outside: Path) -> None:
        self.outside = outside.resolve()
        self.seen: list[str] = []
        self._is_on = False
        sys.addaudithook(self._hear)

    def _hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self._is_on or event != "open" or not isinstance(arguments[0], str | bytes):
            return
        try:
            path = os.path.realpath(os.fsdecode(arguments[0]))
        except (OSError, ValueError):
            return
        if path.startswith(f"{self.outside}/") or path in ("/etc/passwd", "/etc/hostname"):
            self.seen.append(path)

    @contextmanager
    def on(self) -> Iterator[None]:
        """Listen, and look at the files' own times of access, which native code leaves too."""
        self.seen.clear()
        files = [file for file in self.outside.iterdir() if file.is_file()]
        for file in files:
            os.utime(file, (0, file.stat().st_mtime))
        self._is_on = True
        try:
            yield
        finally:
            self._is_on = False
            self.seen += [str(file) for file in files if file.stat().st_atime != 0]


def judge(
    read: Callable[[], object], watch: Watch, allowed: tuple[type[Exception], ...]
) -> Verdict:
    """Run a reader under watch.

    Args:
        read: The reader.
        watch: Of this process.
        allowed: Errors that its contract names, beside QuantshipError.
    """
    with watch.on():
        try:
            with _limits():
                read()
            verdict = Verdict("read")
        except QuantshipError as error:
            verdict = Verdict("refused", str(error)[:300])
            if error.exit_code not in (2, 3):
                verdict = Verdict("failed", f"exit code {error.exit_code}")
        except allowed as error:
            verdict = Verdict("refused", str(error)[:300])
        except (Exception, Overtime) as error:  # noqa: BLE001 - whatever it is, it is told
            verdict = Verdict("failed", _signature(error), traceback.format_exc()[-6000:])
    if watch.seen:
        return Verdict("failed", f"read outside: {Path(watch.seen[0]).name}", str(watch.seen))
    return verdict


@contextmanager
def _limits() -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (_data_bytes() + MOST_BYTES, before[1]))
    handler = signal.signal(signal.SIGALRM, _stop)
    signal.setitimer(signal.ITIMER_REAL, MOST_SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)
        resource.setrlimit(resource.RLIMIT_DATA, before)


def _stop(number: int, frame: FrameType | None) -> None:
    raise Overtime(f"more than {MOST_SECONDS} s")


def _data_bytes() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    (found,) = [line.split()[1] for line in lines if line.startswith("VmData")]
    return int(found) * 1024


def _signature(error: BaseException) -> str:
    """The error's type, and the last place in quantship that it passed."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [one for one in frames if "/quantship/" in one.filename and "/tests/" not in one.filename]
    last = (own or frames)[-1]
    place = last.filename.rpartition("/quantship/")[2]
    return f"{type(error).__name__} at {place}:{last.name}"
