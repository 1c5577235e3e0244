"""Several processes of quantship on this machine: how they are started, watched and waited for."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

import quantship

TIMEOUT_S = 240
LAUNCHER = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
THEIRS = ("WORLD_SIZE", "RANK", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


@dataclass(frozen=True)
class Ended:
    """How a process ended, and what it said."""

    code: int
    out: str
    err: str


Start = Callable[..., subprocess.Popen[str]]
Pair = Callable[..., list[subprocess.Popen[str]]]


def environment(**more: str) -> dict[str, str]:
    """Of a process with one thread, which finds this quantship."""
    kept = {name: value for name, value in os.environ.items() if name not in THEIRS}
    return kept | {
        "OMP_NUM_THREADS": "1",
        "MKL_NUM_THREADS": "1",
        "PYTHONPATH": str(Path(quantship.__file__).parents[1]),
        **more,
    }


def free_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


def ended(process: subprocess.Popen[str], within_s: float = TIMEOUT_S) -> Ended:
    """Wait until a process has ended."""
    out, err = process.communicate(timeout=within_s)
    return Ended(process.returncode, out, err)


def workers(launcher: subprocess.Popen[str]) -> dict[int, psutil.Process]:
    """The processes that torchrun has started, by their index."""
    return {
        int(child.environ()["RANK"]): child
        for child in psutil.Process(launcher.pid).children()
        if "RANK" in child.environ()
    }


def wait_until(condition: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    """Look again and again; fail when the process ends before it has come so far."""
    deadline = time.monotonic() + TIMEOUT_S
    while not condition():
        if process.poll() is not None:
            pytest.fail(f"it ended too early: {process.communicate()}")
        assert time.monotonic() < deadline
        time.sleep(0.01)
