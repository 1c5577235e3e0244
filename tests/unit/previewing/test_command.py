"""``quantship data`` as a user meets it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import quantship
from quantship.previewing.schema import Preview

WIDEST = 120
RECIPE = """\
model: {tiny: {}}
scheme: w8a8
data:
  train: [{adapter: builtin, num_examples: 60}]
  eval: [{adapter: builtin, num_examples: 20}]
  holdout: 0.2
  max_length: 56
steps: [{stage: quantize}]
"""


def command(path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {
        "PYTHONPATH": str(Path(quantship.__file__).parents[1]),
        "PYTHONIOENCODING": "utf-8",
    }
    return subprocess.run(
        [sys.executable, "-m", "quantship", "data", str(path), *arguments],
        env=environment,
        capture_output=True,
        text=True,
        encoding="utf-8",
    )


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recipe whose sides share records."""
    path = tmp_path_factory.mktemp("recipe") / "mine.yaml"
    path.write_text(RECIPE)
    return path


def test_it_shows_counts_lengths_and_marked_examples_without_colours(path: Path) -> None:
    done = command(path, "--examples", "1")
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert max(map(len, lines)) <= WIDEST
    assert "\x1b" not in done.stdout
    assert lines[0] == "mine: as tiny reads it, max_length 56, 0.2 of the training records held out"
    headings = [line for line in lines if line in ("train", "eval")]
    assert headings == ["train", "eval"]
    text = " ".join(done.stdout.split())
    assert "records to evaluate on are trained on as well" in text
    assert "builtin train, held out" in text
    assert "over length" in text
    assert "57+ " in text
    assert "█" in text
    assert text.count("⟦") == text.count("⟧") == 4  # three examples, and the words that explain it
    assert "<|im_end|>⟧" in text


def test_json_is_the_same_for_programs(path: Path) -> None:
    done = command(path, "--json", "--examples", "0", "--limit", "30")
    assert (done.returncode, done.stderr) == (0, "")
    found = Preview.model_validate(json.loads(done.stdout))
    train, evaluated = found.sides
    assert sum(source.records for source in (*train.sources, evaluated.sources[1])) == 30
    assert evaluated.sources[0].records == 20
    assert found.recipe == "mine"


def test_what_is_wrong_is_said_without_a_traceback(path: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.jsonl"
    bad.write_text("{}\n")
    done = command(path, "--set", f"data.train=[{{adapter: chat, path: {bad}}}]")
    assert done.returncode == 3
    assert done.stderr.strip() == f"{bad}:1: key 'messages' is missing"
    done = command(path, "--set", "data.holdout=2")
    assert done.returncode == 2
    assert "data.holdout" in done.stderr
