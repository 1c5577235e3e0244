from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import pytest

import quantship
from quantship.errors import RecipeError
from quantship.plan import describe, make
from quantship.recipe import load, tracking_options

pytestmark = pytest.mark.usefixtures("one_thread")

RECIPE = """\
model: {tiny: {hidden_size: 64, num_layers: 1, num_heads: 2, num_kv_heads: 1}}
data:
  train: [{adapter: builtin, num_examples: 24}]
  eval: [{adapter: builtin, split: eval, num_examples: 2}]
  max_length: 128
steps:
  - {stage: finetune, max_steps: 4, logging_steps: 1}
  - {stage: qat, scheme: w8a8, max_steps: 3, logging_steps: 1}
evaluation: null
benchmark: null
"""


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str], Path]:
    """Writes a recipe of two trainings, and more keys below them."""

    def write(more: str) -> Path:
        path = tmp_path / "mine.yaml"
        path.write_text(RECIPE + more)
        return path

    return write


def curves(result: Any, step: str) -> list[float]:
    points = result.artifacts[step].facts["training"]["points"]
    return [point["loss"] for point in points]


def test_tensorboard_files_hold_the_loss_curves(
    write: Callable[[str], Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    result = quantship.run(write("tracking: {report_to: tensorboard}\n"), artifacts=tmp_path / "a")
    runs = {path.name.rpartition("-")[0]: path for path in (tmp_path / "a/tracking").iterdir()}
    assert set(runs) == {"mine-finetune", "mine-qat"}
    for step in ("finetune", "qat"):
        assert runs[f"mine-{step}"].name.endswith(result.artifacts[step].fingerprint[:6])
        events = EventAccumulator(str(runs[f"mine-{step}"]))
        events.Reload()
        losses = [event.value for event in events.Scalars("train/loss")]
        assert losses == pytest.approx(curves(result, step), rel=1e-6)
    assert len(curves(result, "finetune")) == 4
    assert capfd.readouterr().out == ""


@pytest.mark.slow
def test_trackio_has_the_loss_curves(write: Callable[[str], Path], tmp_path: Path) -> None:
    """In a process of its own: trackio reads where to write when it is imported."""
    needs("trackio")
    recipe = write("tracking: {report_to: [trackio], project: shared, run_name: tried}\n")
    code = f"import quantship; quantship.run({str(recipe)!r}, artifacts={str(tmp_path / 'a')!r})"
    environment = os.environ | {"TRACKIO_DIR": str(tmp_path / "trackio")}
    environment["PYTHONPATH"] = os.pathsep.join(sys.path)
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "Trackio" not in done.stdout
    (database,) = (tmp_path / "trackio").glob("*shared*.db")
    with sqlite3.connect(database) as connection:
        rows = connection.execute("SELECT run_name, metrics FROM metrics ORDER BY id").fetchall()
    found: dict[str, list[float]] = {}
    for name, metrics in rows:
        logged = json.loads(metrics)
        if "train/loss" in logged:
            found.setdefault(name.rpartition("-")[0], []).append(logged["train/loss"])
    assert {name: len(losses) for name, losses in found.items()} == {
        "tried-finetune": 4,
        "tried-qat": 3,
    }


def needs(package: tracking_options.Tracker) -> None:
    """Skip where a tracker is not here, or too old for transformers."""
    try:
        numbers = tuple(map(int, version(package).split(".")[:2]))
    except PackageNotFoundError:
        pytest.skip(f"{package} is not installed")
    if numbers < tracking_options.OLDEST[package]:
        pytest.skip(f"{package} {version(package)} is too old")


def test_who_is_told_changes_no_fingerprint(write: Callable[[str], Path]) -> None:
    pytest.importorskip("tensorboard")
    plain = make(load(write("")), download=False)
    told = make(load(write("tracking: {report_to: [tensorboard], project: p}\n")), download=False)
    for before, after in zip(plain.nodes, told.nodes, strict=True):
        assert before.fingerprint == after.fingerprint
        if after.settings is not None:
            assert "tracking" not in describe(after.settings)
    settings: Any = told["qat"].settings
    assert settings.tracking.name == "mine-qat"
    assert settings.tracking.project == "p"


def test_nobody_is_told_unless_asked(write: Callable[[str], Path], tmp_path: Path) -> None:
    quantship.run(write(""), artifacts=tmp_path / "a")
    assert not (tmp_path / "a" / "tracking").exists()


@pytest.mark.parametrize(
    ("installed", "words"),
    [(None, "wandb is not installed"), ("0.12.9", "wandb 0.12.9 is older than 0.16")],
)
def test_a_tracker_that_is_not_here_is_a_problem_of_the_recipe(
    write: Callable[[str], Path], installed: str | None, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def found(package: str) -> str:
        if installed is None:
            raise PackageNotFoundError(package)
        return installed

    monkeypatch.setattr(tracking_options, "version", found)
    with pytest.raises(RecipeError) as caught:
        load(write("tracking: {report_to: wandb}\n"))
    (problem,) = caught.value.problems
    assert words in problem.message
    assert problem.key == "tracking.report_to.0"
    assert "pip install" in (problem.remedy or "")
