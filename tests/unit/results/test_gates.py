"""Gates held against a report: every rule, its bound, and what is missing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from quantship.recipe import load
from quantship.recipe.gates import Gate as Asked
from quantship.recipe.language import Recipe
from quantship.reporting import evidence
from quantship.reporting.evidence_schema import Gate, MetricFacts
from quantship.reporting.schema import Report
from quantship.reporting.task_scores import ModelScores, Words, together
from quantship.results import gates

MATCH = MetricFacts(name="exact_match", better="higher", kind="share", judges=True)
RECIPE = """\
model: {tiny: {}}
data: {train: [{adapter: builtin}], eval: [{adapter: builtin, split: eval}]}
steps:
  - stage: finetune
  - {stage: quantize, name: ptq-w8a8, input: finetune, scheme: w8a8}
  - {stage: qat, name: qat-w8a8, input: finetune, scheme: w8a8}
  - {stage: export, input: [finetune, ptq-w8a8, qat-w8a8]}
"""
Judge = Callable[..., list[Gate]]


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    path = tmp_path / "recipe.yaml"
    path.write_text(RECIPE)
    return load(path)


@pytest.fixture
def judge(recipe: Recipe, report: Report) -> Judge:
    """Hold the report of a run against one gate."""

    def judge(measured: Any = (), report: Report = report, **asked: Any) -> list[Gate]:
        gate = Asked.model_validate(asked)
        return gates.judge(recipe.model_copy(update={"gates": (gate,)}), report, measured)

    return judge


def measured(size: int = 400, **shares: float) -> list[evidence.Measured]:
    """A task that models have so much of right, each the examples that the best has first."""
    models = {}
    for name, share in shares.items():
        right = (np.arange(size) < share * size).astype(float)
        models[name.replace("_", "-")] = ModelScores(
            ids=[str(place) for place in range(size)],
            weights=np.ones(size),
            sums={"exact_match": right},
            values={"exact_match": float(right.mean())},
            words=[Words()] * size,
            digest="d",
            runtime="torch",
            seconds=None,
            extra={"f1": share},
        )
    return [evidence.measure(together("gsm8k", "gsm8k", [MATCH], [], models), seed=0)]


def with_tasks(report: Report, found: list[evidence.Measured]) -> Report:
    results = evidence.results(found)
    rows = [row.model_copy(update={"tasks": results.get(row.name, {})}) for row in report.models]
    return report.model_copy(update={"models": rows})


def test_limits_without_names_are_for_every_quantized_model(judge: Judge) -> None:
    found = judge(perplexity={"max": 6.2})
    assert [(one.model, one.passed) for one in found] == [
        ("ptq-w8a8", False),
        ("qat-w8a8", True),
        ("ptq-w8a8-onnx", False),
        ("qat-w8a8-onnx", True),
    ]
    assert "6.231" in found[0].reason
    assert "6.2" in found[0].reason
    assert found[0].value == 6.231
    assert found[0].limit == 6.2


@pytest.mark.parametrize(
    ("metric", "limit", "value", "passed"),
    [
        ("perplexity", {"max_increase": "2%", "over": "finetune"}, 6.231 / 6.112 - 1, True),
        ("perplexity", {"max_increase": "1.9%", "over": "finetune"}, 6.231 / 6.112 - 1, False),
        ("perplexity", {"max_increase": 0.2, "over": "finetune"}, 6.231 - 6.112, True),
        ("perplexity", {"max_increase": 0.1, "over": "finetune"}, 6.231 - 6.112, False),
        ("perplexity", {"max_ratio": 1.01, "over": "finetune"}, 6.231 / 6.112, False),
        ("token_accuracy", {"max_decrease": 0.005, "over": "finetune"}, 0.6125 - 0.6081, True),
        ("token_accuracy", {"max_decrease": 0.004, "over": "finetune"}, 0.6125 - 0.6081, False),
        ("token_accuracy", {"max_decrease": "1%", "over": "finetune"}, 1 - 0.6081 / 0.6125, True),
        ("token_accuracy", {"min": "61%"}, 0.6081, False),
        ("size", {"max": "136 MB"}, 135_800_000, True),
        ("size", {"max": "0.1 GB"}, 135_800_000, False),
        ("size", {"max_ratio": 0.3, "over": "finetune"}, 135_800_000 / 538_112_512, True),
        ("decode_speed", {"min": 3}, 3.52, True),
        ("decode_speedup", {"min": 1}, 3.52 / 17.83, False),
        ("decode_speedup", {"min": 0.05, "over": "finetune-onnx"}, 3.52 / 52.31, True),
        ("peak_memory", {"max": "1 GB"}, 1_010_000_000, False),
        ("compression", {"min": 3.9}, 538_112_512 / 135_800_000, True),
    ],
)
def test_each_rule_holds_its_own_number_against_the_limit(
    metric: str, limit: dict[str, Any], value: float, passed: bool, judge: Judge
) -> None:
    (found,) = judge(models=["ptq-w8a8"], **{metric: limit})
    assert found.value == pytest.approx(value)
    assert found.passed is passed
    assert found.measured
    assert metric in found.reason


def test_both_ends_of_a_limit_are_gates_of_their_own(judge: Judge) -> None:
    found = judge(models=["ptq-w8a8"], size={"max": "1 GB", "max_ratio": 0.1, "over": "finetune"})
    assert [(one.rule, one.over, one.passed) for one in found] == [
        ("at most 1,000 MB", None, True),
        ("at most 0.1 × that of finetune", "finetune", False),
    ]


def test_codes_that_are_not_equal_fail(judge: Judge, report: Report) -> None:
    rows = [
        row.model_copy(update={"parity": row.parity.model_copy(update={"codes_equal": False})})
        if row.parity and row.name == "qat-w8a8-onnx"
        else row
        for row in report.models
    ]
    broken = report.model_copy(update={"models": rows})
    found = judge(report=broken, codes_equal=True)
    assert [(one.model, one.passed) for one in found] == [
        ("ptq-w8a8-onnx", True),
        ("qat-w8a8-onnx", False),
    ]
    assert "NOT equal" in found[1].reason


@pytest.mark.parametrize("metric", ["perplexity", "decode_speed", "kl"])
def test_what_was_not_measured_fails(metric: str, judge: Judge, report: Report) -> None:
    nothing = {"metrics": None, "benchmark": None, "parity": None}
    bare = report.model_copy(
        update={"models": [row.model_copy(update=nothing) for row in report.models]}
    )
    limit = {"max": 100} if metric != "decode_speed" else {"min": 0}
    (found,) = judge(report=bare, models=["qat-w8a8-onnx"], **{metric: limit})
    assert not found.passed
    assert (found.value, found.measured) == (None, "")
    assert "was not measured" in found.reason


def test_a_bound_is_stricter_than_the_number_itself(judge: Judge, report: Report) -> None:
    found = measured(finetune=0.60, qat_w8a8=0.59)
    known = with_tasks(report, found)
    limit: dict[str, Any] = {"max_decrease": 0.015, "over": "finetune"}
    (plain,) = judge(found, known, models=["qat-w8a8"], **{"gsm8k.exact_match": limit})
    surely = {**limit, "confidence": 0.95}
    (sure,) = judge(found, known, models=["qat-w8a8"], **{"gsm8k.exact_match": surely})
    assert plain.passed
    assert plain.bound is None
    assert not sure.passed
    assert sure.value == plain.value == pytest.approx(0.01)
    assert sure.bound is not None
    assert sure.bound > 0.015
    assert (sure.limit, sure.confidence) == (0.015, 0.95)
    assert "surely at most" in sure.reason


def test_a_bound_of_an_absolute_limit_is_on_the_near_side(judge: Judge, report: Report) -> None:
    found = measured(qat_w8a8=0.6)
    known = with_tasks(report, found)
    limit = {"min": 0.58, "confidence": 0.95}
    (one,) = judge(found, known, models=["qat-w8a8"], **{"gsm8k.exact_match": limit})
    assert one.bound is not None
    assert 0.5 < one.bound < 0.58
    assert not one.passed


def test_few_examples_tell_no_bound(judge: Judge, report: Report) -> None:
    found = measured(8, finetune=0.5, qat_w8a8=0.5)
    limit = {"max_decrease": 0.5, "over": "finetune", "confidence": 0.9}
    known = with_tasks(report, found)
    (one,) = judge(found, known, models=["qat-w8a8"], **{"gsm8k.exact_match": limit})
    assert not one.passed
    assert "8 examples are too few" in one.reason


def test_a_share_of_nothing_cannot_be_told(judge: Judge, report: Report) -> None:
    found = measured(finetune=0.0, qat_w8a8=0.5)
    limit = {"max_decrease": "5%", "over": "finetune"}
    known = with_tasks(report, found)
    (one,) = judge(found, known, models=["qat-w8a8"], **{"gsm8k.exact_match": limit})
    assert not one.passed
    assert "is 0" in one.reason


def test_numbers_that_are_no_means_can_be_limited_too(judge: Judge, report: Report) -> None:
    found = measured(finetune=0.6, qat_w8a8=0.5)
    known = with_tasks(report, found)
    (one,) = judge(found, known, models=["qat-w8a8"], **{"gsm8k.f1": {"min": 0.4}})
    assert one.passed
    assert one.value == 0.5
