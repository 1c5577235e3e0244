"""Runs among secrets, and what they leave: none of them anywhere."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from urllib.parse import quote

import pytest

TOKEN = "hf_" + "qW3eR5tY7uI9oP1aS2dF4gH6jK8lZ0"
SECRETS = {
    "HF_TOKEN": TOKEN,
    "WANDB_API_KEY": "0123456789abcdef0123456789abcdef01234567",
    "MY_DB_PASSWORD": "correct-horse battery&staple",
    "SOME_SECRET": "s3cr3t-value-of-mine",
}
RECIPE = """\
model: {tiny: {hidden_size: 32, intermediate_size: 64, num_layers: 1, num_heads: 2,
               num_kv_heads: 1, max_positions: 128}}
scheme: w8a8
data:
  train: [{adapter: builtin, num_examples: 4}, {adapter: chat, path: chat.jsonl}]
  eval: [{adapter: builtin, split: eval, num_examples: 4}]
  max_length: 96
steps:
  - {stage: finetune, max_steps: 2}
  - {stage: quantize, name: ptq}
  - {stage: export, input: ptq}
benchmark: null
evaluation: {parity_sequences: 2}
"""


pytestmark = pytest.mark.slow


def go(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    env = os.environ | SECRETS | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "quantship", "run", "recipe.yaml", *arguments]
    return subprocess.run(
        command, env=env, cwd=folder, capture_output=True, text=True, timeout=300, check=False
    )


def leaks(folder: Path, done: subprocess.CompletedProcess[str]) -> list[str]:
    """Where a secret is, among all that was printed or lies in the artifacts."""
    texts = {"stdout": done.stdout.encode(), "stderr": done.stderr.encode()}
    artifacts = folder / "artifacts"
    texts |= {str(one): one.read_bytes() for one in artifacts.rglob("*") if one.is_file()}
    forms = {form for one in SECRETS.values() for form in (one, quote(one, safe=""))}
    return [name for name, text in texts.items() if any(one.encode() in text for one in forms)]


def chat(role: str) -> str:
    turns = [{"role": "user", "content": "a"}, {"role": role, "content": "b"}]
    return json.dumps({"messages": turns}) + "\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the recipe and its data."""
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    (tmp_path / "chat.jsonl").write_text(chat("assistant") * 3)
    return tmp_path


def test_a_run_keeps_them_to_itself(folder: Path) -> None:
    done = go(folder, "--debug")
    assert done.returncode == 0, done.stderr
    assert (folder / "artifacts" / "runs" / "recipe" / "report.html").is_file()
    assert (folder / "artifacts" / "runs" / "recipe" / "lock.json").is_file()
    assert leaks(folder, done) == []


@pytest.mark.parametrize("arguments", [(), ("--debug",)])
def test_an_error_that_quotes_them(folder: Path, arguments: tuple[str, ...]) -> None:
    (folder / "chat.jsonl").write_text(chat(" ".join(SECRETS.values())))
    done = go(folder, *arguments)
    assert done.returncode == 3, done.stderr
    assert done.stderr.count("[secret]") >= len(SECRETS)
    (log,) = (folder / "artifacts").rglob("error.log")
    assert "[secret]" in log.read_text()
    assert leaks(folder, done) == []


def test_a_recipe_or_a_setting_that_holds_them(folder: Path) -> None:
    text = json.dumps(f"made with {' and '.join(SECRETS.values())}")
    for arguments in ((), ("--set", f"description={text}")):
        written = "" if arguments else f"description: {text}\n"
        (folder / "recipe.yaml").write_text(RECIPE + written)
        done = go(folder, *arguments)
        assert done.returncode == 2
        assert "description: holds what looks like a secret" in done.stderr
        assert leaks(folder, done) == []
    assert not (folder / "artifacts").exists()
