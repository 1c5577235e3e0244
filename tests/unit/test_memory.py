"""Which failures are those of memory, and what is said of them."""

from __future__ import annotations

import errno
import subprocess
import sys

import pytest

from quantship import memory


def wrapped(error: Exception) -> Exception:
    try:
        try:
            raise error
        except Exception as inner:
            raise ValueError("the layer cannot be read") from inner
    except ValueError as outer:
        return outer


def out_of_memory_in_torch() -> Exception:
    import torch

    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 60)
    return caught.value


def out_of_memory_in_numpy() -> Exception:
    import numpy as np

    with pytest.raises(MemoryError) as caught:
        np.empty(1 << 50)
    return caught.value


@pytest.mark.parametrize(
    "make",
    [
        MemoryError,
        lambda: OSError(errno.ENOMEM, "Cannot allocate memory"),
        lambda: wrapped(MemoryError()),
        out_of_memory_in_torch,
        out_of_memory_in_numpy,
    ],
)
def test_missing_memory_is_told_with_what_helps(make: type[Exception]) -> None:
    said = memory.complaint(make())
    assert said is not None
    assert said.startswith("memory is exhausted: ")
    assert "batch_size" in said


@pytest.mark.parametrize(
    "error", [ValueError("out of memory"), OSError(errno.ENOENT, "none"), RuntimeError("shape")]
)
def test_other_failures_are_not_memorys(error: Exception) -> None:
    assert memory.complaint(error) is None


def test_a_process_that_the_system_kills_is_known() -> None:
    done = subprocess.run([sys.executable, "-c", "import os; os.kill(os.getpid(), 9)"], check=False)
    assert memory.killed(done.returncode) is not None
    assert memory.killed(1) is None
