from __future__ import annotations

from typing import Any

import pytest

from quantship.job import Plan
from quantship.reporting.pairs import Pair, pairs


@pytest.fixture
def plan(lab: Any) -> Plan:
    tuned = lab.tune("tuned", "model")
    ptq = lab.ptq("ptq", "tuned", "w8a8")
    better = lab.ptq("ptq-gptq", "tuned", "w8a8", algorithm={"kind": "gptq"})
    qat = lab.qat("qat", "tuned", "w8a8")
    exports = [lab.export(node) for node in (tuned, ptq, better, qat)]
    return lab.plan(tuned, ptq, better, qat, *exports)  # type: ignore[no-any-return]


def found(plan: Plan, *evaluated: str, twins: dict[str, str] | None = None) -> set[Pair]:
    return set(pairs(plan, evaluated, twins or {}))


def test_checkpoints_are_held_against_the_float_one_and_qat_against_ptq(plan: Plan) -> None:
    assert found(plan, "model", "tuned", "ptq", "qat") == {
        Pair("ptq", "tuned", "float"),
        Pair("qat", "tuned", "float"),
        Pair("qat", "ptq", "ptq", "tuned"),
    }


def test_the_best_twin_is_taken(plan: Plan) -> None:
    twins = {"qat": "ptq-gptq"}
    every = found(plan, "tuned", "ptq", "ptq-gptq", "qat", twins=twins)
    assert Pair("qat", "ptq-gptq", "ptq", "tuned") in every
    assert Pair("qat", "ptq", "ptq", "tuned") in found(plan, "tuned", "ptq", "qat", twins=twins)


def test_exports_are_held_against_checkpoints_and_their_like(plan: Plan) -> None:
    assert found(plan, "tuned", "qat", "qat-onnx", "ptq-onnx", "tuned-onnx") == {
        Pair("qat", "tuned", "float"),
        Pair("qat-onnx", "tuned", "float"),
        Pair("ptq-onnx", "tuned", "float"),
        Pair("qat-onnx", "ptq-onnx", "ptq", "tuned"),
        Pair("qat-onnx", "qat", "source"),
        Pair("tuned-onnx", "tuned", "source"),
    }


def test_an_exported_float_model_stands_in_for_one_that_was_not_evaluated(plan: Plan) -> None:
    assert found(plan, "tuned-onnx", "qat-onnx") == {Pair("qat-onnx", "tuned-onnx", "float")}


def test_nothing_is_compared_with_what_was_not_evaluated(plan: Plan) -> None:
    assert found(plan, "qat") == set()
    assert found(plan, "model", "qat") == set()
