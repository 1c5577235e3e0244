"""Encoders that tell the classes of texts, through whole recipes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from encoders import save_encoder, sentences, write_sst2

import quantship
from quantship.quant import checkpoint
from quantship.recipe import load
from quantship.recipe.shipped import find
from quantship.tasks import scores

if TYPE_CHECKING:
    from quantship.pipeline import RunResult

pytestmark = pytest.mark.usefixtures("one_thread")
RECIPE = """\
model: {{path: {folder}/encoder, head: classification}}
data:
  train: [{{adapter: glue, task: sst2, path: {folder}/train.tsv}}]
  eval: [{{adapter: glue, task: sst2, path: {folder}/test.tsv}}]
  max_length: 64
steps:
  - {{stage: finetune, epochs: 10, batch_size: 16, learning_rate: 2.0e-3}}
  - {{stage: quantize, name: ptq, input: finetune, scheme: [w8a8, w8a16, w4a16-g32]}}
  - stage: quantize
    name: static
    input: finetune
    scheme: w8a8-static
    algorithm: smoothquant
    calibration: {{sequences: 16}}
  - stage: qat
    scheme: w4a16-g32
    input: finetune
    epochs: 2
    batch_size: 16
    learning_rate: 1.0e-3
  - {{stage: export, input: [finetune, ptq-w8a8, ptq-w4a16-g32, static, qat]}}
evaluation:
  batch_size: 16
  tasks:
    - {{task: classification, name: sst2}}
    - {{task: divergence, models: [ptq-w8a8, ptq-w8a8-onnx]}}
benchmark: null
"""
QUANTIZED = ["ptq-w8a8", "ptq-w8a16", "ptq-w4a16-g32", "static", "qat"]
EXPORTED = ["finetune", "ptq-w8a8", "ptq-w4a16-g32", "static", "qat"]
NUM_TEST = 64


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory, one_thread: None) -> RunResult:
    """A tiny BERT that learns which sentences praise, on every runtime."""
    folder = tmp_path_factory.mktemp("encoders")
    train = sentences(192, seed=0)
    save_encoder(folder / "encoder", [text for text, _ in train])
    write_sst2(folder / "train.tsv", train)
    write_sst2(folder / "test.tsv", sentences(NUM_TEST, seed=1))
    recipe = folder / "encoder.yaml"
    recipe.write_text(RECIPE.format(folder=folder))
    return quantship.run(recipe, artifacts=folder / "artifacts")


def accuracy(result: RunResult) -> dict[str, float]:
    rows = result.report.models
    return {row.name: row.metrics.token_accuracy for row in rows if row.metrics is not None}


def test_every_model_is_evaluated_as_a_classifier(result: RunResult) -> None:
    exports = [f"{name}-onnx" for name in EXPORTED]
    assert list(accuracy(result)) == ["model", "finetune", *QUANTIZED, *exports]
    for row in result.report.models:
        assert row.metrics is not None
        assert row.metrics.num_tokens == NUM_TEST


def test_it_learns_and_rounding_takes_little_of_it(result: RunResult) -> None:
    found = accuracy(result)
    assert found["model"] < 0.7
    assert found["finetune"] > 0.95
    for name in QUANTIZED:
        assert found[name] > found["finetune"] - 0.05
    losses = {row.name: row.metrics.mean_loss for row in result.report.models if row.metrics}
    assert losses["qat"] < losses["ptq-w4a16-g32"]


def test_the_exports_carry_the_integers_and_answer_alike(result: RunResult) -> None:
    rows = {row.name: row for row in result.report.models}
    for name in EXPORTED:
        exported, source = rows[f"{name}-onnx"], rows[name]
        assert exported.parity is not None
        assert exported.metrics is not None
        assert source.metrics is not None
        near = 0.05 if name in ("ptq-w4a16-g32", "qat") else 1e-4
        assert exported.parity.max_abs_logit_diff < near
        assert exported.parity.top1_agreement == 1
        assert exported.metrics.mean_loss == pytest.approx(source.metrics.mean_loss, abs=near)
        if name != "finetune":
            stored = checkpoint.load_codes(result.artifacts[name].path)
            assert exported.parity.codes_equal
            assert exported.parity.tensors_compared == len(stored) == 15
            assert source.parity is not None
            assert source.parity.codes_equal
            assert source.parity.max_abs_logit_diff < 1e-5


def test_the_task_says_what_the_evaluation_does_and_of_which_texts(result: RunResult) -> None:
    for name, share in accuracy(result).items():
        made = result.artifacts[f"sst2 of {name}"]
        assert made.facts["metrics"]["accuracy"] == pytest.approx(share)
        assert made.facts["extra"].keys() == {"f1", "matthews"}
    examples = scores.read(result.artifacts["sst2 of qat-onnx"].path)
    assert [one.expected for one in examples] == ["negative", "positive"] * (NUM_TEST // 2)
    assert [one.prompt for one in examples] == [text for text, _ in sentences(NUM_TEST, seed=1)]
    right = [one.answer == one.expected for one in examples]
    assert np.mean(right) == pytest.approx(accuracy(result)["qat-onnx"])


def test_classes_are_compared_with_those_of_the_float_model(result: RunResult) -> None:
    for name in ("ptq-w8a8", "ptq-w8a8-onnx"):
        metrics = result.artifacts[f"divergence of {name}"].facts["metrics"]
        assert 0 < metrics["kl_nats"] < 1e-2
        assert metrics["top1_agreement"] > 0.9


def test_the_report_says_how_to_read_it(result: RunResult) -> None:
    assert any("tell the classes of texts" in note for note in result.report.notes)
    facts = result.report.data["eval"]
    assert isinstance(facts, dict)
    assert facts["texts_by_class"] == {"negative": NUM_TEST // 2, "positive": NUM_TEST // 2}


def test_the_checkpoint_is_for_anybodys_transformers(result: RunResult) -> None:
    from transformers import AutoModelForSequenceClassification, pipeline

    path = result.artifacts["ptq-w8a16"].path
    model: Any = AutoModelForSequenceClassification.from_pretrained(path)
    tells = pipeline("text-classification", model=model, tokenizer=str(path))
    examples = scores.read(result.artifacts["sst2 of ptq-w8a16"].path)[:8]
    found = tells([str(one.prompt) for one in examples])
    assert [one["label"] for one in found] == [one.answer for one in examples]


def test_the_export_has_what_clients_look_for(result: RunResult) -> None:
    path = result.artifacts["qat-onnx"].path
    config = json.loads((path / "config.json").read_text())
    assert config["id2label"] == {"0": "negative", "1": "positive"}
    assert (path / "tokenizer.json").is_file()
    assert (path / "model.onnx").is_file()


# A shipped recipe


@pytest.mark.slow
def test_the_shipped_recipe_runs_on_a_tiny_model(tmp_path: Path) -> None:
    train = sentences(64, seed=0)
    texts = [text for text, _ in train]
    encoder = save_encoder(tmp_path / "encoder", texts, architecture="distilbert")
    overrides = [
        f"model={{path: {encoder}, head: classification}}",
        f"data.train.0.path={write_sst2(tmp_path / 'train.tsv', train)}",
        f"data.eval.0.path={write_sst2(tmp_path / 'dev.tsv', sentences(16, seed=1))}",
        "data.max_length=64",
        "steps.finetune.max_steps=2",
        "steps.qat-w4.max_steps=2",
        "benchmark=null",
    ]
    file = find("distilbert-sst2-int8")
    recipe = load(file, profile="smoke", overrides=overrides)
    result = quantship.run(
        file, profile="smoke", overrides=overrides, artifacts=tmp_path / "artifacts"
    )
    rows = {row.name: row for row in result.report.models}
    steps = [str(step.name) for step in recipe.steps if step.stage != "export"]
    assert list(rows) == ["model", *steps, *(f"{name}-onnx" for name in steps)]
    assert rows.pop("model").metrics is None
    for row in rows.values():
        assert row.metrics is not None
        assert row.metrics.num_tokens == 16
        if row.scheme is not None:
            assert row.parity is not None
            assert row.parity.codes_equal


# Real sentences

SST2 = """\
model: {{path: {folder}/encoder, head: classification}}
data:
  train: [{{adapter: glue, task: sst2, path: {data}/train.tsv, limit: 5000}}]
  eval: [{{adapter: glue, task: sst2, path: {data}/test.tsv}}]
  max_length: 64
steps:
  - {{stage: finetune, epochs: 2, batch_size: 32, learning_rate: 1.0e-3, save_steps: 1000}}
  - {{stage: quantize, name: ptq, input: finetune, scheme: w8a8}}
  - stage: qat
    scheme: w4a16-g32
    input: finetune
    max_steps: 20
    batch_size: 32
    learning_rate: 2.0e-4
  - {{stage: export, input: qat}}
evaluation: {{batch_size: 32, baseline: false}}
benchmark: null
"""


@pytest.mark.slow
def test_real_sentences_are_learned_better_than_by_chance(
    shared_data: Path, tmp_path: Path
) -> None:
    data = shared_data / "glue-sst2"
    lines = (data / "train.tsv").read_text(encoding="utf-8").splitlines()[1:5001]
    save_encoder(tmp_path / "encoder", [line.rpartition("\t")[0] for line in lines], num_words=4096)
    recipe = tmp_path / "sst2.yaml"
    recipe.write_text(SST2.format(folder=tmp_path, data=data))
    found = accuracy(quantship.run(recipe, artifacts=tmp_path / "artifacts"))
    # 444 of the 872 sentences are positive, so that guessing gets half of them.
    assert min(found.values()) > 0.68
    assert found["qat-onnx"] == pytest.approx(found["qat"], abs=0.01)
