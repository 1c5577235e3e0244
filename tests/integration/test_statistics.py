"""What is known of a float model's inputs is found out once, for all steps that want to know it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch

from quantship import plan as planning
from quantship.quant import checkpoint, statistics_file
from quantship.quant.scheme import STATIC
from quantship.recipe import load
from quantship.recipe.rounding_options import Calibration

if TYPE_CHECKING:
    from pathlib import Path

    from quantship.job import Plan
RECIPE = """\
model: {tiny: {hidden_size: 64, num_layers: 2, num_heads: 4, num_kv_heads: 2}}
data:
  train: [{adapter: builtin, num_examples: 12}]
  eval: [{adapter: builtin, split: eval, num_examples: 2}]
evaluation: null
benchmark: null
scheme: w8a8-static
steps:
  - {stage: quantize, name: first, calibration: {sequences: 6}}
  - {stage: quantize, name: second, algorithm: hqq, calibration: {sequences: 6, range: mse}}
  - {stage: quantize, name: other, calibration: {sequences: 6, seed: 1}}
  - {stage: quantize, name: dynamic, scheme: w8a8}
  - {stage: quantize, name: gptq, algorithm: gptq, calibration: {sequences: 6}}
"""
SHARED = "statistics of model (6 sequences)"
SEEDED = "statistics of model (6 sequences, seed 1)"


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "static.yaml"
    path.write_text(RECIPE)
    return path


def plan(recipe: Path, *overrides: str) -> Plan:
    return planning.make(load(recipe, overrides=overrides), download=False)


def test_only_steps_that_need_no_data_but_for_ranges_read_statistics(recipe: Path) -> None:
    inputs = {node.name: dict(node.inputs) for node in plan(recipe).nodes}
    assert inputs["first"] == {"model": "model", "statistics": SHARED}
    assert inputs["second"] == {"model": "model", "statistics": SHARED}
    assert inputs["other"] == {"model": "model", "statistics": SEEDED}
    assert inputs["dynamic"] == {"model": "model"}
    assert inputs["gptq"] == {"model": "model", "data": "data"}
    assert inputs[SHARED] == {"model": "model", "data": "data"}


def test_a_bias_is_corrected_with_data(recipe: Path) -> None:
    corrected = plan(recipe, "steps.0.bias_correction=true")["first"]
    assert dict(corrected.inputs) == {"model": "model", "data": "data"}


def test_the_usual_calibration_has_the_plain_name(recipe: Path) -> None:
    usual = plan(recipe, "steps.0.calibration.sequences=32")
    assert usual["first"].inputs["statistics"] == "statistics of model"


def test_statistics_are_known_by_model_data_and_choice(recipe: Path) -> None:
    before = plan(recipe)[SHARED].fingerprint
    assert plan(recipe, "steps.0.calibration.range=minmax")[SHARED].fingerprint == before
    assert plan(recipe, "seed=1")[SHARED].fingerprint != before
    assert plan(recipe, "model.tiny.num_layers=1")[SHARED].fingerprint != before
    assert plan(recipe)[SEEDED].fingerprint != before


def test_steps_share_one_artifact_and_a_second_run_finds_it(runner: Any, recipe: Path) -> None:
    result = runner(recipe=recipe)
    started = runner.happened("started")
    assert [name for name in started if name.startswith("statistics")] == [SHARED, SEEDED]
    for name, kind in (("first", "moving_average"), ("second", "mse")):
        artifact = result.artifacts[name]
        assert artifact.facts["calibration_sequences"] == 6
        assert artifact.facts["calibration_tokens"] > 6
        seen = statistics_file.load(result.artifacts[SHARED].path / statistics_file.FILE)
        stored = checkpoint.load_codes(artifact.path)
        for layer, found in seen.items():
            grid, in_file = found.grid(Calibration(range=kind), STATIC), stored[layer].input_grid
            assert in_file is not None
            assert torch.equal(in_file.scale.float(), grid.scale)
    runner(recipe=recipe)
    assert runner.happened("started") == []
    assert SHARED in runner.happened("reused")
    runner("steps.0.calibration.range=entropy", recipe=recipe)
    assert runner.happened("started") == ["first"]
