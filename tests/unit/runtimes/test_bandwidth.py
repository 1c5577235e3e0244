from __future__ import annotations

import subprocess
import sys

import pytest

from quantship.runtimes import bandwidth


def test_memory_is_read_at_a_speed_that_memory_has() -> None:
    assert 1e9 < bandwidth.measure_apart(1) < 2e12


def test_all_of_the_array_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four times as much takes longer, which it would not if it came from one page or a cache."""
    seconds = {}
    for num_bytes in (2**26, 2**28):
        monkeypatch.setattr(bandwidth, "ARRAY_BYTES", num_bytes)
        seconds[num_bytes] = num_bytes / bandwidth.measure(1)
    assert seconds[2**28] > 2 * seconds[2**26]


def test_it_imports_neither_torch_nor_a_runtime() -> None:
    code = (
        "import sys; from quantship.runtimes import bandwidth; bandwidth.ARRAY_BYTES = 2**20; "
        "bandwidth.measure(2); print(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not set(done.stdout.split()) & {"torch", "onnxruntime", "transformers"}
