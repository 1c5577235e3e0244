"""Fixtures that start processes, and let none of them outlive its test."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import psutil
import pytest
from several import LAUNCHER, Pair, Start, environment, free_port


@pytest.fixture
def start() -> Iterator[Start]:
    """Start Python with arguments; whatever still runs at the end of the test is killed."""
    started: list[subprocess.Popen[str]] = []

    def start(*arguments: str | Path, **more: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, *map(str, arguments)],
            env=environment(**more),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            for child in psutil.Process(process.pid).children(recursive=True):
                child.kill()
            process.kill()
            process.communicate()


@pytest.fixture
def torchrun(start: Start) -> Start:
    """Start two processes of Python with arguments under torchrun."""
    return lambda *arguments, **more: start(*LAUNCHER, *arguments, **more)


@pytest.fixture
def pair(start: Start) -> Pair:
    """Start two processes that no launcher watches, each with arguments of its own."""

    def pair(
        first: Sequence[str | Path], second: Sequence[str | Path]
    ) -> list[subprocess.Popen[str]]:
        port = free_port()
        return [
            start(
                *arguments,
                WORLD_SIZE="2",
                RANK=str(index),
                LOCAL_RANK=str(index),
                LOCAL_WORLD_SIZE="2",
                MASTER_ADDR="127.0.0.1",
                MASTER_PORT=port,
            )
            for index, arguments in enumerate((first, second))
        ]

    return pair
