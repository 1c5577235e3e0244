"""Runs in processes of their own, started by ``server``, to be watched, stopped and killed."""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import psutil

import quantship

TIMEOUT_S = 300.0
ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "PYTHONHASHSEED": "0",
    "HF_HUB_OFFLINE": "1",
}


class Run:
    """One process of quantship.

    Args:
        pid: Its process.
        folder: Where its output goes.
    """

    def __init__(self, pid: int, folder: Path, number: int) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self.ended = threading.Event()
        self._out = folder / f"{number}.out"
        self._err = folder / f"{number}.err"

    def wait(self, timeout_s: float = TIMEOUT_S) -> int:
        """The exit code; negative, the signal that killed it."""
        if not self.ended.wait(timeout_s):
            self.kill()
            raise TimeoutError(f"a run has not ended in {timeout_s:g} s: {self.stderr}")
        assert self.returncode is not None
        return self.returncode

    def until(self, condition: Callable[[], bool], timeout_s: float = TIMEOUT_S) -> bool:
        """Look every millisecond; False where the run ends before it comes true."""
        deadline = time.monotonic() + timeout_s
        while not condition():
            if self.ended.is_set():
                return False
            if time.monotonic() > deadline:
                raise TimeoutError(f"what was waited for has not come in {timeout_s:g} s")
            time.sleep(0.001)
        return True

    def send(self, number: int) -> None:
        """Send a signal."""
        if not self.ended.is_set():
            os.kill(self.pid, number)

    def kill(self) -> None:
        """Send SIGKILL, to it alone, and wait until it is gone."""
        import signal

        self.send(signal.SIGKILL)
        self.ended.wait(TIMEOUT_S)

    def children(self) -> list[psutil.Process]:
        """What it has started and what that has started."""
        try:
            return psutil.Process(self.pid).children(recursive=True)
        except psutil.Error:
            return []

    @property
    def stdout(self) -> str:
        """What it has printed so far."""
        return self._out.read_text(errors="replace")

    @property
    def stderr(self) -> str:
        """What it has complained about so far."""
        return self._err.read_text(errors="replace")

    def happened(self, word: str) -> list[str]:
        """Jobs of which it said so: ``running``, ``done``, ``reused``, ``failed``."""
        lines = [line[2:] for line in self.stdout.splitlines() if line[:1] in "✓▸✗"]
        return [line[:24].strip() for line in lines if line[25:].startswith(word)]


class Server:
    """The process that starts runs; a context manager.

    Args:
        folder: Where runs start and their output goes.
        fresh: Start each as an interpreter of its own, which takes some seconds more.
    """

    def __init__(self, folder: Path, *, fresh: bool = False) -> None:
        self._folder = folder
        self._fresh = fresh
        self._runs: dict[int, Run] = {}
        self._answers: queue.Queue[dict[str, int]] = queue.Queue()
        self._started = 0

    def __enter__(self) -> Server:
        places = (Path(quantship.__file__).parents[1], Path(__file__).parents[1])
        self._process = subprocess.Popen(
            [sys.executable, "-m", "faults.server"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=os.environ | ENVIRONMENT | {"PYTHONPATH": os.pathsep.join(map(str, places))},
        )
        threading.Thread(target=self._listen, daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()

    def start(self, arguments: Sequence[str], **options: Any) -> Run:
        """Start ``quantship ARGUMENTS``.

        Args:
            arguments: The command line.
            options: Of ``server.be_a_run``: memory_bytes, cgroup, user, watched, environment.
        """
        self._started += 1
        environment = ENVIRONMENT | options.pop("environment", {})
        request = {
            "arguments": list(arguments),
            "folder": str(self._folder),
            "stdout": str(self._folder / f"{self._started}.out"),
            "stderr": str(self._folder / f"{self._started}.err"),
            "environment": environment,
            "fresh": self._fresh and not options.get("watched"),
            **options,
        }
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(request).encode() + b"\n")
        self._process.stdin.flush()
        answer = self._answers.get(timeout=TIMEOUT_S)
        if "pid" not in answer:
            raise RuntimeError("the process that starts runs has ended")
        return self._runs[answer["pid"]]

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            answer = json.loads(line)
            if "status" in answer:
                run = self._runs.pop(answer["pid"])
                run.returncode = answer["status"]
                run.ended.set()
            else:
                pid = answer["pid"]
                self._runs[pid] = Run(pid, self._folder, self._started)
                self._answers.put(answer)
        for run in self._runs.values():  # the server is gone, and its runs with it
            run.returncode = -9
            run.ended.set()
        self._answers.put({})
