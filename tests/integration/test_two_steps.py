"""The classic flow, and rounding while loading, held to the integers that were trained."""

from __future__ import annotations

import textwrap

import pytest
import torch

import quantship
from quantship.models import weight_bytes
from quantship.pipeline import RunResult

RECIPE = """
model: {tiny: {num_layers: 1, hidden_size: 64, intermediate_size: 128}}
data:
  train: [{adapter: builtin, num_examples: 32}]
  eval: [{adapter: builtin, split: eval, num_examples: 12}]
scheme: w8a8
steps:
  - {stage: qat, name: one-step, max_steps: 3, learning_rate: 1.0e-3}
  - {stage: qat, name: qat-fake, max_steps: 3, learning_rate: 1.0e-3, input: model, output: float}
  - {stage: quantize, name: two-steps, input: qat-fake}
  - {stage: quantize, name: ptq, input: model}
  - {stage: quantize, name: static, input: model, scheme: w8a8-static}
evaluation: {online: true, baseline: false}
benchmark: null
"""


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> RunResult:
    folder = tmp_path_factory.mktemp("two-steps")
    recipe = folder / "two-steps.yaml"
    recipe.write_text(textwrap.dedent(RECIPE))
    return quantship.run(recipe, artifacts=folder / "artifacts")


def test_the_float_model_is_a_clean_bfloat16_one(result: RunResult) -> None:
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(result.artifacts["qat-fake"].path, dtype="auto")
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    assert {
        type(module).__name__ for module in model.modules() if "Linear" in str(type(module))
    } == {"Linear"}
    (row,) = [row for row in result.report.models if row.name == "qat-fake"]
    assert (row.kind, row.scheme) == ("float", None)
    assert row.size_bytes == weight_bytes(result.artifacts["qat-fake"].path)
    assert row.compression == pytest.approx(2, rel=0.1)


def test_the_second_rounding_is_held_to_what_was_trained(result: RunResult) -> None:
    found = result.artifacts["two-steps"].facts["handoff"]
    assert 0.5 < found["share_of_codes_equal"] < 1, "bfloat16 weights do not round as float32 ones"
    assert found["codes_equal"] is False
    routes = {(route.model, route.route): route for route in result.report.routes}
    two = routes["two-steps", "two-step"]
    assert (two.reference, two.share_of_codes_equal) == ("qat-fake", found["share_of_codes_equal"])


def test_torchao_finds_the_same_integers_while_it_loads(result: RunResult) -> None:
    routes = {(route.model, route.route): route for route in result.report.routes}
    online = routes["ptq", "online"]
    assert online.codes_equal
    (row,) = [row for row in result.report.models if row.name == "ptq"]
    assert row.metrics is not None
    assert online.perplexity == pytest.approx(row.metrics.perplexity, rel=1e-6)
    assert ("static", "online") not in routes, "static ranges need calibration"


def test_the_report_shows_it(result: RunResult) -> None:
    text = (result.report_dir / "report.md").read_text()
    assert "## Other routes to the integers" in text
    assert "| ptq | online | ptq | all, and scales |" in text
    assert "Other routes to the integers" in (result.report_dir / "report.html").read_text()
