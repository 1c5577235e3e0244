"""Two runs that share their float model, and one of other data, set side by side."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import quantship
from quantship.comparing.compare import compare
from quantship.comparing.schema import Comparison
from quantship.reporting.schema import Report

RECIPE = """\
model:
  tiny: {hidden_size: 64, intermediate_size: 96, num_layers: 2, num_heads: 2, num_kv_heads: 1,
         max_positions: 128}
data:
  train: [{adapter: builtin, num_examples: 96}]
  eval: [{adapter: builtin, split: eval, num_examples: 24}]
  max_length: 96
  mask_prompt: false
scheme: w4a16-g32
steps:
  - {stage: finetune, max_steps: 12, learning_rate: 3.0e-3, batch_size: 8}
  - {stage: quantize, name: ptq-rtn, input: finetune}
STEPS
evaluation: {baseline: false}
benchmark: null
"""
GPTQ = """\
  - {stage: quantize, name: ptq-gptq, input: finetune, algorithm: gptq, calibration: {seed: 0}}
  - {stage: quantize, name: ptq-gptq-1, input: finetune, algorithm: gptq, calibration: {seed: 1}}
"""
QAT = "  - {stage: qat, input: finetune, max_steps: 4, learning_rate: 5.0e-4, batch_size: 8}\n"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the runs lie."""
    return tmp_path_factory.mktemp("compare") / "artifacts"


@pytest.fixture(scope="module")
def runs(root: Path, one_thread: None) -> dict[str, Report]:
    """The runs' reports by name."""
    from quantship import pipeline
    from quantship.recipe import load

    reports = {}
    for name, steps, overrides in (
        ("sweep", GPTQ, ()),
        ("qat", QAT, ()),
        ("fewer", "", ("evaluation.limit=12",)),
    ):
        recipe = root.parent / f"{name}.yaml"
        recipe.write_text(RECIPE.replace("STEPS\n", steps))
        made = pipeline.run(load(recipe, overrides=overrides), root)
        reports[name] = made.report
    return reports


def test_a_report_ranks_and_names_what_each_algorithm_did(runs: dict[str, Report]) -> None:
    report = runs["sweep"]
    rows = {row.name: row for row in report.models}
    gptq = rows["ptq-gptq"].quantization
    assert gptq is not None
    assert gptq.words == "gptq"
    assert gptq.calibration is not None
    assert (gptq.calibration.sequences, gptq.calibration.seed) == (32, 0)
    assert gptq.seconds is not None
    assert rows["finetune"].quantization is None
    assert report.ranking is not None
    names = [entry.name for entry in report.ranking.entries]
    assert sorted(names) == ["ptq-gptq", "ptq-gptq-1", "ptq-rtn"]
    losses = [entry.mean_loss for entry in report.ranking.entries]
    assert losses == sorted(losses)
    for entry in report.ranking.entries:
        metrics = rows[entry.name].metrics
        assert metrics is not None
        assert entry.mean_loss == pytest.approx(metrics.mean_loss)
    (seeds,) = report.ranking.seeds
    assert sorted(seeds.models) == ["ptq-gptq", "ptq-gptq-1"]


def test_runs_of_the_same_data_are_ranked_together(runs: dict[str, Report], root: Path) -> None:
    assert runs["sweep"].evaluation_data == runs["qat"].evaluation_data
    assert runs["sweep"].evaluation_data != runs["fewer"].evaluation_data
    found = compare([root])
    assert [group.runs for group in found.groups] == [["fewer"], ["qat", "sweep"]]
    group = found.groups[1]
    assert group.ranking is not None
    assert group.ranking.no_intervals is None
    names = [entry.name for entry in group.ranking.entries]
    assert sorted(names) == [
        "qat/finetune",
        "qat/ptq-rtn",
        "qat/qat",
        "sweep/ptq-gptq",
        "sweep/ptq-gptq-1",
    ]
    shared = {model.name: model.also for model in group.models}
    assert shared["qat/finetune"] == ["sweep/finetune"]
    assert shared["qat/ptq-rtn"] == ["sweep/ptq-rtn"]
    assert shared["qat/qat"] == []
    gptq = next(entry for entry in group.ranking.entries if entry.name == "sweep/ptq-gptq")
    assert gptq.of_nearest is not None
    assert gptq.source == "qat/finetune"
    assert gptq.lost is not None
    assert gptq.lost.low is not None
    keys = [item.key for item in found.recipes]
    assert "evaluation.limit" in keys
    assert {"steps.ptq-gptq", "steps.qat"} <= set(keys)


def test_the_command_prints_and_writes_all_forms(runs: dict[str, Report], root: Path) -> None:
    command = [sys.executable, "-m", "quantship", "compare", "artifacts/runs/qat"]
    environment = os.environ | {"PYTHONPATH": str(Path(quantship.__file__).parents[1])}

    def run(*arguments: str) -> str:
        return subprocess.run(
            [*command, *arguments],
            cwd=root.parent,
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        ).stdout

    text = run("artifacts/runs/sweep", "--html", "out.html", "--markdown", "out.md")
    assert "qat, sweep: ranking" in text
    assert "sweep/ptq-gptq" in text
    assert "Written: out.html" in text
    assert "sweep/ptq-gptq" in (root.parent / "out.html").read_text()
    assert "## Ranking: qat, sweep" in (root.parent / "out.md").read_text()
    found = Comparison.model_validate(json.loads(run("artifacts/runs/fewer", "--json")))
    assert len(found.groups) == 2


def test_a_report_alone_is_compared_without_intervals(
    runs: dict[str, Report], root: Path, tmp_path: Path
) -> None:
    alone = shutil.copy(root / "runs" / "qat" / "report.json", tmp_path / "alone.json")
    (group,) = compare([Path(alone), root / "runs" / "sweep"]).groups
    assert group.ranking is not None
    assert group.ranking.no_intervals is not None
    assert all(
        entry.behind_best is None or entry.behind_best.low is None
        for entry in group.ranking.entries
    )
