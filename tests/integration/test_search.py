"""A search from a recipe to what is made of it, on a tiny model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import quantship
from quantship import pipeline
from quantship.errors import RecipeError, StageError
from quantship.models import weight_bytes
from quantship.quant import checkpoint
from quantship.recipe import load
from quantship.stages import search

if TYPE_CHECKING:
    from quantship.pipeline import RunResult

pytestmark = pytest.mark.slow

RECIPE = """\
model: {tiny: {hidden_size: 128, num_layers: 2, num_heads: 4, num_kv_heads: 2}}
scheme: w4a16-g32
schemes:
  w4-g16: {base: w4a16-g32, weight: {group_size: 16}}
data:
  train: [{adapter: builtin, num_examples: 24}]
  eval: [{adapter: builtin, split: eval, num_examples: 4}]
  max_length: 128
steps:
  - {stage: finetune, max_steps: 8, learning_rate: 3.0e-3}
  - stage: search
    name: mixed
    candidates: [w8a16, w4-g16, w4a16-g32, w2a16-g32]
    target_bits: 4.4
    calibration: {sequences: 4}
  - stage: search
    name: sized
    candidates: [w8a16, w4-g16, w4a16-g32, w4a16-g128]
    max_bytes: w4a16-g32
    calibration: {sequences: 4}
  - {stage: quantize, name: ptq, scheme: mixed}
  - {stage: qat, scheme: mixed, max_steps: 2, input: finetune}
  - {stage: quantize, name: small, scheme: sized}
  - {stage: quantize, name: uniform, scheme: w4a16-g32}
  - {stage: export, input: [ptq, qat, small, uniform]}
benchmark: null
evaluation: {limit: 2, parity_sequences: 2}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, one_thread: None) -> Path:
    folder = tmp_path_factory.mktemp("search")
    (folder / "mixed.yaml").write_text(RECIPE)
    return folder


@pytest.fixture(scope="module")
def ran(folder: Path) -> RunResult:
    return quantship.run(folder / "mixed.yaml", artifacts=folder / "artifacts")


def test_what_was_found_is_what_is_trained_stored_and_exported(ran: RunResult) -> None:
    scheme = search.read_scheme(ran.artifacts["mixed"].path, "mixed")
    layers = {one["name"]: one for one in ran.artifacts["mixed"].facts["layers"]}
    assert len({one["code_bits"] for one in layers.values()}) > 1
    for name in ("ptq", "qat"):
        stored = checkpoint.load_codes(ran.artifacts[name].path)
        assert {key: one.bits for key, one in stored.items()} == {
            key: one["code_bits"] for key, one in layers.items()
        }
    rows = {row.name: row for row in ran.report.models}
    for name in ("ptq", "qat", "ptq-onnx", "qat-onnx"):
        assert rows[name].scheme == scheme.name == "mixed"
        assert rows[name].parity is not None
        assert rows[name].parity.codes_equal
        assert rows[name].metrics is not None


def test_the_average_is_kept_and_nothing_uniform_of_its_size_is_better(ran: RunResult) -> None:
    facts = ran.artifacts["mixed"].facts
    assert facts["result"]["bits"] <= 4.4
    for one in facts["uniform"]:
        if one["bits"] <= 4.4:
            assert facts["result"]["kl_nats"] < one["kl_nats"]
    assert facts["gap"] < 1e-3


def test_files_are_no_larger_than_those_of_the_scheme_that_was_named(ran: RunResult) -> None:
    sizes = {
        name: weight_bytes(ran.artifacts[f"{name}-onnx"].path) for name in ("small", "uniform")
    }
    facts = ran.artifacts["sized"].facts
    assert facts["size_bytes"] <= facts["limit"]
    # A graph says what its scheme is called.
    assert abs(sizes["small"] - facts["size_bytes"]) < 100
    assert abs(sizes["uniform"] - facts["limit"]) < 100
    of_uniform = next(one for one in facts["uniform"] if one["candidate"] == "w4a16-g32")
    assert facts["result"]["predicted_nats"] <= of_uniform["predicted_nats"]
    assert not (ran.artifacts["sized"].path / "probe").exists()


def test_a_second_run_finds_all_of_it(ran: RunResult, folder: Path) -> None:
    planned = pipeline.plan(load(folder / "mixed.yaml"), folder / "artifacts")
    assert all(step.reused for step in planned)
    assert {"ptq", "qat", "qat-onnx", "evaluate qat-onnx"} <= {step.name for step in planned}


def test_before_the_search_a_plan_says_what_waits_for_it(folder: Path, tmp_path: Path) -> None:
    planned = {step.name: step for step in pipeline.plan(load(folder / "mixed.yaml"), tmp_path)}
    assert planned["mixed"].search is None
    assert planned["ptq"].search == planned["evaluate qat-onnx"].search == "mixed"
    assert planned["small"].search == "sized"
    assert planned["uniform-onnx"].search is None
    assert planned["ptq"].path is None


def test_another_budget_makes_what_comes_after_anew(ran: RunResult, folder: Path) -> None:
    recipe = load(folder / "mixed.yaml", overrides=["steps.mixed.target_bits=6"])
    steps = {step.name: step for step in pipeline.plan(recipe, folder / "artifacts")}
    assert not steps["mixed"].reused
    assert steps["ptq"].search == "mixed"
    assert steps["small"].reused


def test_a_killed_search_goes_on(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from quantship.search import sensitivity

    overrides = ["steps.mixed.measure=kl", "steps=" + json.dumps(_steps(folder)[:2])]
    overrides.append("evaluation=null")
    compare, runs = sensitivity.Predictions.compare, 0

    def killed(self: Any) -> Any:
        nonlocal runs
        runs += 1
        if runs == 20:
            raise KeyboardInterrupt
        return compare(self)

    monkeypatch.setattr(sensitivity.Predictions, "compare", killed)
    with pytest.raises(KeyboardInterrupt):
        quantship.run(folder / "mixed.yaml", artifacts=tmp_path, overrides=overrides[1:])
    (left,) = tmp_path.glob("steps/search-*.resume/sensitivity.jsonl")
    assert len(left.read_text().splitlines()) == 19
    runs = 1000
    resumed = quantship.run(folder / "mixed.yaml", artifacts=tmp_path, overrides=overrides[1:])
    layers = resumed.artifacts["mixed"].facts["layers"]
    tried = sum(4 if layer["candidate"] else 1 for layer in layers)
    uniforms_and_result = 5
    assert runs == 1000 + tried - 19 + uniforms_and_result
    assert not left.exists()


def _steps(folder: Path) -> list[dict[str, Any]]:
    steps = load(folder / "mixed.yaml").steps
    dumped = [
        step.model_dump(mode="json", exclude_defaults=True) | {"stage": step.stage}
        for step in steps
    ]
    dumped[1]["measure"] = "kl"
    return dumped


@pytest.mark.parametrize(
    ("setting", "wanted"),
    [
        ("target_bits=2", r"target_bits.*2\.5 to 8"),
        ("target_bits=9", r"target_bits.*2\.5 to 8"),
        ("candidates=[w8a16, w4]", "unknown scheme 'w4'"),
        ("candidates=[w8a16, w8a16]", "twice"),
        ("scheme=w8a8-static", "do not go with inputs"),
        ("name=w8a16", "taken by a scheme"),
        ("max_bytes=100", "one of"),
        ("runtime=tflite", "runtime"),
    ],
)
def test_what_cannot_be_is_told_before_any_work(folder: Path, setting: str, wanted: str) -> None:
    with pytest.raises(RecipeError, match=f"(?s){wanted}"):
        load(folder / "mixed.yaml", overrides=[f"steps.mixed.{setting}"])


def test_a_scheme_is_found_before_it_is_used(folder: Path) -> None:
    with pytest.raises(RecipeError, match="step 'mixed' comes later"):
        load(folder / "mixed.yaml", overrides=["steps=" + json.dumps(_steps(folder)[::-1])])


def test_a_search_needs_training_data(folder: Path) -> None:
    steps = [step for step in _steps(folder)[1:2]]
    overrides = ["steps=" + json.dumps(steps), "data.train=[]"]
    with pytest.raises(RecipeError, match="nothing to search on"):
        load(folder / "mixed.yaml", overrides=overrides)


def test_bytes_that_no_file_has_are_refused_with_what_is_possible(
    ran: RunResult, folder: Path
) -> None:
    overrides = ["steps.sized.max_bytes=1 kB"]
    with pytest.raises(StageError, match=r"cannot be kept: candidates come to [\d,]+ to"):
        quantship.run(folder / "mixed.yaml", artifacts=folder / "artifacts", overrides=overrides)
