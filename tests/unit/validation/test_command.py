"""``quantship validate``: what it prints, and with which exit code."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from typer.testing import CliRunner, Result

import quantship
from quantship import cli, console
from quantship.validation import terminal
from quantship.validation.options import Options
from quantship.validation.run import validate

FAST = ("--sequences", "1", "--length", "16", "--new-tokens", "3")


@pytest.fixture(autouse=True)
def _loud(monkeypatch: pytest.MonkeyPatch) -> None:
    """Libraries are quieted for a whole process, which other tests share."""
    monkeypatch.setattr(console, "quiet_libraries", lambda: None)


def called(*arguments: object) -> Result:
    return CliRunner().invoke(cli.app, ["validate", *map(str, arguments)])


def test_equal_models_exit_with_0(models: Any) -> None:
    done = called(models("w8a8"), models("onnx w8a8 integer"), *FAST)
    assert done.exit_code == 0
    for words in ("Equal within tolerance", "✓ stored numbers", "Perplexity", "Greedy", "Top-1"):
        assert words in done.stdout
    assert "✗" not in done.stdout


def test_different_models_exit_with_4_and_name_the_difference(models: Any) -> None:
    done = called(models("w8a8"), models("w4a16-g32"), *FAST)
    assert done.exit_code == 4
    assert "Different: stored numbers" in done.stdout
    assert "model.layers.0.mlp.down_proj: codes, row 0, column 0" in done.stdout
    assert "--json has all" in done.stdout


def test_json_holds_everything_and_nothing_else(models: Any) -> None:
    done = called(models("float"), models("w4a16-g32"), *FAST, "--max-kl", "0", "--json")
    assert done.exit_code == 4
    found = json.loads(done.stdout)
    assert found["a"]["kind"] == "torch"
    assert found["b"]["kind"] == "torchao"
    assert found["tolerance"]["max_kl"] == 0
    assert [one["name"] for one in found["checks"] if not one["passed"]] == ["KL"]
    assert len(found["continuation"]["b"]) == 3


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("nowhere", "."), 2, "A: nowhere does not exist"),
        (("empty", "empty"), 2, "holds no model"),
        (("a.onnx", "a.onnx"), 3, "no readable ONNX model"),
        (("a.onnx", "a.onnx", "--min-top1", "2"), 2, "--min-top1"),
    ],
)
def test_what_cannot_be_is_a_message_and_no_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: Any, code: int, words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.onnx").write_bytes(b"no graph")
    (tmp_path / "empty").mkdir()
    done = called(*arguments)
    assert done.exit_code == code
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_a_broken_config_is_named(models: Any, tmp_path: Path) -> None:
    shutil.copytree(models("float"), tmp_path / "broken")
    (tmp_path / "broken" / "config.json").write_text("{")
    done = called(tmp_path / "broken", models("float"))
    assert done.exit_code == 3
    assert "config.json is no JSON" in done.stderr


def test_help_has_examples() -> None:
    done = called("--help")
    assert done.exit_code == 0
    assert "Examples:" in done.stdout
    assert "quantship validate models/qat models/onnx" in done.stdout


def test_the_process_exits_with_4(models: Any, tmp_path: Path) -> None:
    path = tmp_path / "cut"
    shutil.copytree(models("onnx float"), path)
    (data,) = (one for one in path.iterdir() if one.stat().st_size > 100_000)
    with data.open("r+b") as file:
        file.truncate(1000)
    command = [sys.executable, "-m", "quantship", "validate", str(path), str(models("float"))]
    environment = os.environ | {"PYTHONPATH": str(Path(quantship.__file__).parents[1])}
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (4, "")
    assert "is truncated: it has 1,000 bytes" in done.stdout
    assert "Different: files of A" in done.stdout


def test_the_first_token_that_differs_is_shown(models: Any) -> None:
    found = validate(models("float"), models("float"), Options(sequences=1, length=8))
    assert found.continuation is not None
    changed = found.continuation.model_copy(update={"b": (1, 2, 3), "first_difference": 0})
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(terminal.rendered(found.model_copy(update={"continuation": changed})))
    text = console.export_text()
    assert "new token 0 differs" in text
    assert f"token 0: {found.continuation.a[0]} in A, 1 in B" in text
