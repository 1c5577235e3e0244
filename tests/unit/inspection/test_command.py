"""``quantship inspect`` as a user meets it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import quantship
from quantship import models
from quantship.inspection.inspect import inspect
from quantship.inspection.report import Inspection

WIDEST = 100

pytestmark = pytest.mark.usefixtures("one_thread")


def command(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(Path(quantship.__file__).parents[1])}
    return subprocess.run(
        [sys.executable, "-m", "quantship", "inspect", *map(str, arguments)],
        env=environment,
        capture_output=True,
        text=True,
    )


def lines(*arguments: str | Path) -> list[str]:
    done = command(*arguments)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


def test_an_export_in_sections_no_wider_than_100_columns(make_export: Any) -> None:
    shown = lines(make_export("w8a8", "nbits"))
    assert max(map(len, shown)) <= WIDEST
    headings = [line.strip() for line in shown if line and not line.startswith(" ")]
    for heading in ("Inputs", "Outputs", "Quantized", "In float", "Operators", "Metadata"):
        assert heading in headings
    text = " ".join(" ".join(shown).split())
    for words in (
        "model.embed_tokens + lm_head",
        "model.layers.*.mlp.up_proj",
        "past_key_values.*.key (2)",
        "scheme w8a8",
        "Run here as",
        "Warnings: none",
    ):
        assert words in text


def test_layers_are_grouped_unless_all_are_wanted(make_export: Any) -> None:
    path = make_export("w8a8", "nbits")
    grouped, every = lines(path, "--no-session"), lines(path, "--no-session", "--all")
    assert not any("layers.1.mlp.up_proj" in line for line in grouped)
    for layer in (0, 1):
        assert any(f"model.layers.{layer}.mlp.up_proj" in line for line in every)
        assert any(f"/model/layers.{layer}/mlp/up_proj/MatMul.codes" in line for line in every)


def test_totals_are_those_of_the_rows(make_export: Any) -> None:
    path = make_export("w8a8", "nbits")
    shown = lines(path, "--no-session")
    totals = [line.split() for line in shown if line.strip().startswith("Total")]
    found = inspect(path, session=False)
    assert totals[0][1] == str(len(found.quantized))
    assert totals[0][2] == f"{found.sizes.num_quantized:,}"
    assert found.onnx is not None
    assert totals[-1][1] == str(sum(entry.count for entry in found.onnx.operators))


def test_json_is_the_inspection_and_nothing_else(make_export: Any) -> None:
    path = make_export("w4a16-g32", "nbits")
    done = command(path, "--json", "--no-session")
    assert (done.returncode, done.stderr) == (0, "")
    assert Inspection.model_validate_json(done.stdout) == inspect(path, session=False)
    assert json.loads(done.stdout)["fusion"]["status"] == "skipped"


def test_a_checkpoint_too(tiny_model_dir: Path) -> None:
    shown = lines(tiny_model_dir)
    assert max(map(len, shown)) <= WIDEST
    assert f"{models.num_parameters(tiny_model_dir):,}" in "\n".join(shown)


def test_wrong_use_and_broken_files_have_their_exit_codes(
    float_model: Path, tmp_path: Path
) -> None:
    gone = command(tmp_path / "gone")
    assert (gone.returncode, gone.stdout) == (2, "")
    assert "there is no" in gone.stderr
    float_model.write_bytes(float_model.read_bytes()[:-10])
    broken = command(float_model)
    assert (broken.returncode, broken.stdout) == (3, "")
    assert "cut off" in broken.stderr
    assert "Traceback" not in broken.stderr


def test_help_has_examples() -> None:
    done = command("--help")
    assert "quantship inspect model.onnx --no-session" in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= WIDEST


def test_names_with_brackets_are_shown_as_they_are(make_onnx: Any) -> None:
    from onnx import helper

    path = make_onnx(
        [helper.make_node("Relu", ["x"], ["y"])], {}, size=(4, 4), metadata={"[bold]": "[/red]"}
    )
    assert any("[bold]" in line and "[/red]" in line for line in lines(path, "--no-session"))
