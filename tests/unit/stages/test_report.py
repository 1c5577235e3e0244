from __future__ import annotations

from typing import Any

import pytest

from quantship.job import Node
from quantship.quant.scheme import SCHEMES
from quantship.recipe.language import QatStep
from quantship.stages import qat
from quantship.stages.report import training_method


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
