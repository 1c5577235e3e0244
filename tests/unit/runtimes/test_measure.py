from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from quantship.runtimes.measure import PROMPTS

REQUEST = {
    "threads": 1,
    "batch_size": 2,
    "prompt_tokens": 8,
    "decode_tokens": 5,
    "vocabulary": 260,
    "seed": 0,
}
COMMAND = [sys.executable, "-m", "quantship.runtimes.measure"]
LISTING = (  # the same, and the modules that it imported on standard error
    "import runpy, sys; runpy.run_module('quantship.runtimes.measure', run_name='__main__'); "
    "print('', *sys.modules, '', file=sys.stderr)"
)


class Measured(NamedTuple):
    result: dict[str, Any]
    modules: set[str]


def run(command: list[str], path: Path) -> subprocess.CompletedProcess[str]:
    request = json.dumps({"path": str(path), **REQUEST})
    return subprocess.run(command, input=request, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def measured(tiny_model_dir: Path, tiny_onnx_dir: Path) -> dict[str, Measured]:
    """The tiny model, measured once on each runtime."""
    found = {}
    for runtime, path in (("torch", tiny_model_dir), ("onnxruntime", tiny_onnx_dir)):
        done = run([sys.executable, "-c", LISTING], path)
        assert done.returncode == 0, done.stderr
        found[runtime] = Measured(json.loads(done.stdout), set(done.stderr.split()))
    return found


@pytest.mark.parametrize("runtime", ["torch", "onnxruntime"])
def test_the_answer_is_one_json_object(measured: dict[str, Measured], runtime: str) -> None:
    result = measured[runtime].result
    assert result.keys() == {
        *("runtime", "device", "prefill_s", "decode_s"),
        *("peak_rss_bytes", "peak_gpu_bytes"),
    }
    assert (result["device"] == "cuda") or result["peak_gpu_bytes"] is None
    assert result["runtime"] == runtime
    assert len(result["prefill_s"]) == PROMPTS
    assert len(result["decode_s"]) == REQUEST["decode_tokens"]
    assert all(0 < seconds < 60 for seconds in [*result["prefill_s"], *result["decode_s"]])
    assert 20 * 2**20 < result["peak_rss_bytes"] < 8 * 2**30


def test_only_the_runtime_that_serves_the_model_is_imported(measured: dict[str, Measured]) -> None:
    assert not measured["onnxruntime"].modules & {"torch", "transformers", "torchao"}
    assert "onnxruntime" in measured["onnxruntime"].modules
    assert "onnxruntime" not in measured["torch"].modules
    assert "torch" in measured["torch"].modules


def test_memory_is_each_runtimes_own(measured: dict[str, Measured]) -> None:
    onnx_bytes, torch_bytes = (
        measured[runtime].result["peak_rss_bytes"] for runtime in ("onnxruntime", "torch")
    )
    assert onnx_bytes < torch_bytes / 2


def test_it_runs_as_a_module(tiny_onnx_dir: Path) -> None:
    done = run(COMMAND, tiny_onnx_dir)
    assert done.returncode == 0
    assert json.loads(done.stdout)["runtime"] == "onnxruntime"
    assert len(done.stdout.splitlines()) == 1


def test_a_model_that_cannot_be_opened_fails_with_its_name(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"no model")
    done = run(COMMAND, tmp_path)
    assert done.returncode != 0
    assert str(tmp_path / "model.onnx") in done.stderr
    assert not done.stdout
