from __future__ import annotations

from typing import Any

import pytest

from quantship.job import Node
from quantship.quant.scheme import SCHEMES, ActivationFormat
from quantship.recipe.language import QatStep
from quantship.stages import qat
from quantship.stages.report import describe_activation, training_method


def training(**options: Any) -> Node:
    scheme = SCHEMES["w8a8"]
    step = QatStep.model_validate({"stage": "qat", "scheme": "w8a8", **options})
    settings = qat.Settings(step=step, scheme=scheme, seed=0)
    return Node("qat", "qat", settings, {"model": "model"}, scheme, "qat", "")


@pytest.mark.parametrize(
    ("options", "method"),
    [
        ({}, ""),
        ({"name": "x", "input": "y", "max_steps": 9, "learning_rate": 0.1}, ""),
        ({"lora": True}, "lora"),
        ({"distill": {"temperature": 2}, "lora": {"rank": 4}}, "lora, distill"),
        ({"scales": "learned"}, "scales learned"),
        ({"lora": False, "scales": "current"}, ""),
    ],
)
def test_the_method_is_what_no_plain_training_does(options: dict[str, Any], method: str) -> None:
    assert training_method(training(**options)) == method


@pytest.mark.parametrize(
    ("activation", "text"),
    [
        (
            ActivationFormat(),
            "int8, asymmetric, one scale and zero point a token (dequantized)",
        ),
        (ActivationFormat(symmetric=True), "int8, symmetric, one scale a token"),
        (
            ActivationFormat(granularity="per_tensor", ranges="static"),
            "int8, asymmetric, one scale and zero point a tensor, fixed by calibration",
        ),
    ],
)
def test_arithmetic_is_told_in_words(activation: ActivationFormat, text: str) -> None:
    assert describe_activation(activation) == text
