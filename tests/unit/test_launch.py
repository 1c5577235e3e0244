"""The launcher ends as quantship's processes end, where torchrun says 1 of everything."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from quantship import stopping
from quantship.errors import RecipeError

pytestmark = pytest.mark.slow


def command(*words: str, processes: int = 2) -> list[str]:
    options = ["--standalone", f"--nproc-per-node={processes}", "--shutdown-timeout=60"]
    return [sys.executable, "-m", "quantship.launch", *options, *words]


def test_it_ends_with_the_exit_code_of_a_process(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text("nonsense: 1\n")
    done = subprocess.run(
        command("run", "recipe.yaml"), cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == RecipeError.exit_code
    assert "nonsense: unknown key" in done.stderr


def test_it_ends_with_zero_where_all_processes_do(tmp_path: Path) -> None:
    done = subprocess.run(
        command("explain", "seed"), cwd=tmp_path, capture_output=True, check=False
    )
    assert done.returncode == 0


def test_a_stop_reaches_the_processes_and_is_told_from_a_failure(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(
        "model: {tiny: {hidden_size: 32, intermediate_size: 64, num_layers: 1, num_heads: 1,"
        " num_kv_heads: 1}}\n"
        "data:\n"
        "  train: [{adapter: builtin, split: train, num_examples: 64}]\n"
        "  eval: [{adapter: builtin, split: eval, num_examples: 8}]\n"
        "scheme: w8a8\n"
        "steps: [{stage: finetune, learning_rate: 1.0e-3, batch_size: 2, max_steps: 100000}]\n"
    )
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    words = command("run", "recipe.yaml", processes=1)
    with subprocess.Popen(words, cwd=tmp_path, env=environment, stdout=subprocess.PIPE) as running:
        assert running.stdout is not None
        for line in running.stdout:
            if b"finetune" in line:
                break
        running.send_signal(signal.SIGTERM)
        running.stdout.read()
        assert running.wait(60) == stopping.EXIT_CODE
    assert not list((tmp_path / "artifacts").glob("steps/finetune-????????????????"))
