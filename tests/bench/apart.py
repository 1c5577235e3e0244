"""Run a script of the benchmark in a process of its own, which reads and writes JSON.

So that one measurement's memory is not another's, and so that a peer may live in an environment
that quantship does not share.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

POLL_S = 0.02


class Failed(RuntimeError):
    """The script ended without a result; the message ends with what it wrote."""


def run(
    script: Path, request: Mapping[str, Any], *, threads: int, python: str = sys.executable
) -> dict[str, Any]:
    """What a script answers to a request.

    Args:
        script: Reads a JSON object from standard input; the last line that it writes is another.
        request: What to do.
        threads: Of all libraries of the process.
        python: Interpreter of another environment.

    Returns:
        Its answer, and ``peak_anonymous_bytes``: the most memory of its own that it held, seen
        from outside 50 times a second; pages of mapped files do not count. None where the system
        does not tell.

    Raises:
        Failed: It ended with an error.
    """
    with subprocess.Popen(
        [python, str(script)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment(threads)},
    ) as process:
        watched = _Watched(process.pid)
        watched.start()
        try:
            output, errors = process.communicate(json.dumps(request))
        except BaseException:
            process.kill()
            raise
        finally:
            watched.over.set()
    if process.returncode:
        raise Failed(f"{script.name} ended with {process.returncode}:\n{errors[-2000:]}")
    answer: dict[str, Any] = json.loads(output.splitlines()[-1])
    return {**answer, "peak_anonymous_bytes": watched.peak_bytes}


def environment(threads: int) -> dict[str, str]:
    """Variables that hold every library to so many threads, and away from the network."""
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    quiet = {
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "TQDM_DISABLE": "1",
    }
    return {**dict.fromkeys(names, str(threads)), **quiet}


class Cost:
    """Seconds of wall clock and of all processors, and peak memory, of a part of a process."""

    def __init__(self) -> None:
        self._wall, self._cpu = time.perf_counter(), time.process_time()
        self._before = resident_bytes()

    def so_far(self) -> dict[str, float]:
        """What it took until now; memory is the whole process's since it began."""
        return {
            "seconds": time.perf_counter() - self._wall,
            "cpu_seconds": time.process_time() - self._cpu,
            "peak_rss_bytes": resident_bytes("VmHWM"),
            "rss_before_bytes": self._before,
        }


def resident_bytes(line: str = "VmRSS", pid: int | str = "self") -> int:
    """A line of a process's status; 0 where there is none."""
    try:
        rows = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    found = next((row for row in rows if row.startswith(f"{line}:")), None)
    return 0 if found is None else int(found.split()[1]) * 1024


class _Watched(threading.Thread):
    """Looks at a process's memory until told that it is over."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self._pid = pid
        self._peak = 0
        self.over = threading.Event()

    def run(self) -> None:
        while not self.over.wait(POLL_S):
            self._peak = max(self._peak, resident_bytes("RssAnon", self._pid))

    @property
    def peak_bytes(self) -> int | None:
        return self._peak or None
