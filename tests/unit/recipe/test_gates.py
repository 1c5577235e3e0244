"""Gates: what a limit means, and everything about them that a check finds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from pydantic import ValidationError

from quantship.recipe import load
from quantship.recipe.gate_metrics import MEASURES, judged
from quantship.recipe.gates import Gate, Limit, number, unit

RECIPE = """\
model: {tiny: {}}
data:
  train: [{adapter: builtin}]
  eval: [{adapter: builtin, split: eval}]
steps:
  - stage: finetune
  - {stage: quantize, name: ptq, input: finetune, scheme: w8a8}
  - {stage: qat, input: finetune, scheme: w4a16-g32}
  - {stage: export, input: [finetune, ptq, qat]}
evaluation:
  tasks:
    - {task: perplexity, name: again, models: [finetune, qat, qat-onnx]}
    - {task: divergence}
"""
Write = Callable[..., Path]
Complaints = Callable[..., str]


def gated(gates: str, rest: str = "") -> str:
    return f"{RECIPE}{rest}gates:\n  - {gates}\n"


@pytest.mark.parametrize(
    ("text", "value", "in_unit"),
    [
        ("200 MB", 2e8, "MB"),
        ("0.5gb", 5e8, "GB"),
        ("2%", 0.02, "%"),
        (" 2 % ", 0.02, "%"),
        ("1.5", 1.5, ""),
        ("1e-05", 1e-5, ""),
        ("300 kb", 3e5, "kB"),
    ],
)
def test_quantities_are_read(text: str, value: float, in_unit: str) -> None:
    assert number(text) == pytest.approx(value)
    assert unit(text) == in_unit


@pytest.mark.parametrize("text", ["much", "2 %%", "1.2.3", "200 MiBs", "", "1e999", "nan"])
def test_what_is_no_quantity_is_refused(text: str) -> None:
    with pytest.raises(ValidationError, match="is no number"):
        Limit(max=text)


def test_a_limit_is_kept_as_it_was_written() -> None:
    gate = Gate.model_validate(
        {"size": {"max": "200 MB"}, "gsm8k.exact_match": {"max_decrease": 0.02, "over": "model"}}
    )
    assert gate.model_dump(mode="json") == {
        "size": {"max": "200 MB"},
        "gsm8k.exact_match": {"max_decrease": "0.02", "over": "model"},
    }
    assert Gate.model_validate(gate.model_dump(mode="json")) == gate
    assert list(gate.limits) == ["size", "gsm8k.exact_match"]


def test_by_default_every_quantized_model_that_is_measured_is_judged(write: Write) -> None:
    gates = (
        "{perplexity: {max: 9}, codes_equal: true, again.perplexity: {max: 9}, "
        "divergence.kl_nats: {max: 1}, size: {max_ratio: 1.1, over: ptq}}"
    )
    recipe = load(write(gated(gates)))
    (gate,) = recipe.gates
    quantized = ["ptq", "qat", "ptq-onnx", "qat-onnx"]
    assert judged(recipe, gate, "perplexity") == quantized
    assert judged(recipe, gate, "codes_equal") == ["ptq-onnx", "qat-onnx"]
    assert judged(recipe, gate, "again.perplexity") == ["qat", "qat-onnx"]
    assert judged(recipe, gate, "divergence.kl_nats") == quantized
    assert judged(recipe, gate, "size") == ["qat", "ptq-onnx", "qat-onnx"]


def test_a_swept_step_stands_for_its_models(write: Write) -> None:
    swept = RECIPE.replace("scheme: w8a8", "scheme: [w8a8, w4a16-g32]")
    recipe = load(write(f"{swept}gates:\n  - {{models: [ptq], size: {{max: 1 GB}}}}\n"))
    assert recipe.gates[0].models == ("ptq-w8a8", "ptq-w4a16-g32")


@pytest.mark.parametrize("metric", [name for name in Gate.model_fields if name in MEASURES])
def test_every_limit_of_every_metric_is_in_the_dump(metric: str) -> None:
    if metric == "codes_equal":
        gate = Gate(codes_equal=True)
        assert gate.model_dump() == {"codes_equal": True}
        return
    for bound in Limit.model_fields:
        value = {"over": "qat", "confidence": 0.75, "min_ratio": 0.5, "max_ratio": 0.5}
        written = {bound: value.get(bound, "0.25")}
        gate = Gate.model_validate({metric: written})
        assert gate.model_dump() == {metric: written}
        assert gate.limits == {metric: Limit.model_validate(written)}


def test_every_metric_has_a_key_and_every_key_a_metric() -> None:
    assert {"models", *MEASURES} == set(Gate.model_fields)


FAULTS = {
    "{perplexty: {max: 9}}": ["perplexty", "no metric", "Did you mean perplexity"],
    "{modles: [qat], size: {max: 1 GB}}": ["unknown key", "Did you mean models"],
    "{models: [qta], size: {max: 1 GB}}": ["gates.0.models.0", "'qta'", "Did you mean qat"],
    "{models: []}": ["at least one"],
    "{}": ["limits nothing"],
    "{codes_equal: false}": ["asks for nothing"],
    "{agian.perplexity: {max: 9}}": ["no task is called 'agian'", "Did you mean again"],
    "{again.perplexty: {max: 9}}": ["does not measure 'perplexty'", "Did you mean perplexity"],
    "{size: {}}": ["gives no limit", "max_ratio"],
    "{size: {max: 2%}}": ["size is not given in %", "MB"],
    "{size: {max: -3}}": ["-3 is below 0"],
    "{token_accuracy: {min: 90}}": ["share from 0 to 1", "90%"],
    "{perplexity: {max: 20 MB}}": ["perplexity is not given in MB"],
    "{perplexity: {min: 3}}": ["lower perplexity is better", "Did you mean max?"],
    "{token_accuracy: {max_increase: 1%, over: finetune}}": ["Did you mean max_decrease?"],
    "{perplexity: {max_increase: 2%}}": ["`over` is missing", "over: finetune"],
    "{perplexity: {max_increase: 2%, over: finetun}}": ["'finetun'", "Did you mean finetune"],
    "{perplexity: {max: 9, over: finetune}}": ["compared with no other model"],
    "{models: [qat], size: {max_ratio: 2, over: qat}}": ["compared with itself"],
    "{size: {max: 1 GB, confidence: 0.9}}": ["no mean over examples", "Perplexity"],
    "{perplexity: {max: 9, confidence: 95}}": ["confidence", "below 1"],
    "{size: {max: true}}": ["size.max", "true"],
    "{decode_speedup: {min_ratio: 2, over: finetune}}": ["a ratio already", "min"],
    "{models: [ptq], again.perplexity: {max: 9}}": ["'again' does not evaluate ptq"],
    "{again.perplexity: {max_increase: 2%, over: model}}": ["does not evaluate model"],
    "{models: [finetune], divergence.kl_nats: {max: 1}}": ["float model, which finetune is"],
    "{models: [ptq], codes_equal: true}": ["quantized and exported models, and ptq is none"],
}


@pytest.mark.parametrize(("gates", "words"), FAULTS.items())
def test_a_gate_that_cannot_be_judged_is_found_at_its_line(
    gates: str, words: list[str], write: Write, complaints: Complaints
) -> None:
    text = gated(gates)
    said = complaints(write(text))
    assert all(word in said for word in words), said
    assert f"recipe.yaml:{len(text.splitlines())}: gates.0" in said


@pytest.mark.parametrize(
    ("gates", "rest", "why"),
    [
        ("{decode_speed: {min: 9}}", "benchmark: null\n", "`benchmark: null`"),
        ("{models: [qat], peak_memory: {max: 1 GB}}", "benchmark: null\n", "`benchmark: null`"),
    ],
)
def test_what_the_recipe_does_not_measure_cannot_be_limited(
    gates: str, rest: str, why: str, write: Write, complaints: Complaints
) -> None:
    assert why in complaints(write(gated(gates, rest)))


def test_without_an_evaluation_there_is_no_perplexity(write: Write, complaints: Complaints) -> None:
    plain = RECIPE.partition("evaluation:")[0]
    text = f"{plain}evaluation: null\ngates:\n  - {{perplexity: {{max: 9}}, size: {{max: 1 GB}}}}\n"
    said = complaints(write(text))
    assert "`evaluation: null`" in said
    assert "size" not in said


def test_a_baseline_that_is_not_evaluated_is_no_reference(
    write: Write, complaints: Complaints
) -> None:
    text = RECIPE.replace("evaluation:\n", "evaluation:\n  baseline: false\n")
    text += "gates:\n  - {perplexity: {max_increase: 2%, over: model}}\n"
    assert "`evaluation.baseline: false`" in complaints(write(text))


def test_all_that_is_wrong_is_told_at_once(write: Write, complaints: Complaints) -> None:
    gates = "{perplexty: {max: 9}, size: {max: 2%}, token_accuracy: {max: 1}}"
    said = complaints(write(gated(gates)))
    assert said.count("gates.0") == 3


def test_no_task_is_called_data(write: Write, complaints: Complaints) -> None:
    said = complaints(write(RECIPE.replace("name: again", "name: data")))
    assert "evaluation.tasks.0.name" in said


def test_what_a_broken_task_would_measure_is_not_asked_for(
    write: Write, complaints: Complaints
) -> None:
    text = RECIPE.replace("{task: divergence}", "{task: divergence, limit: -1}")
    said = complaints(write(f"{text}gates:\n  - {{divergence.kl_nats: {{max: 1}}}}\n"))
    assert "limit" in said
    assert "gates" not in said
