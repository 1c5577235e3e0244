from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from quantship.recipe import load

Write = Callable[..., Path]
Complaints = Callable[..., str]
RECIPE = """\
model: {tiny: {}}
data: {train: [{adapter: builtin}], eval: [{adapter: builtin}]}
steps:
  - {stage: finetune}
  - {stage: quantize, name: eight, scheme: w8a8}
  - {stage: quantize, name: four, scheme: w4a8}
  - {stage: qat, name: four-too, scheme: w4a16-g32}
  - {stage: qat, name: clean, scheme: w8a16, output: float, max_steps: 1}
  - {stage: export, input: [finetune, eight, four, four-too, clean]}
"""


def pushing(models: str, layout: str = "one") -> str:
    return f"{RECIPE}push: {{repo: me/it, models: [{models}], layout: {layout}}}\n"


@pytest.mark.parametrize(
    "models",
    ["eight", "eight, eight-onnx", "four, finetune-onnx, eight-onnx, four-onnx", "finetune"],
)
def test_models_of_different_places_fit_in_one_repository(write: Write, models: str) -> None:
    load(write(pushing(models)))


@pytest.mark.parametrize(
    ("models", "place"),
    [
        ("eight, four", "the top"),
        ("finetune, clean", "the top"),
        ("four-onnx, eight-onnx, four-too-onnx", "onnx/model_q4.onnx"),
        ("finetune-onnx, clean-onnx", "onnx/model.onnx"),
    ],
)
def test_models_of_one_place_do_not(
    write: Write, complaints: Complaints, models: str, place: str
) -> None:
    first, *_, last = models.split(", ")
    said = complaints(write(pushing(models)))
    assert f"'{last}' and '{first}' both go to {place} of one repository" in said
    assert f"push.models.{models.count(',')}" in said
    assert "layout: folders" in said
    for layout in ("folders", "several"):
        load(write(pushing(models, layout)))


@pytest.mark.parametrize(
    "value", ["layout: heap", "license: Apache 2", "revision: '-x'", "tag: ''"]
)
def test_values_that_the_hub_does_not_know_are_refused(
    write: Write, complaints: Complaints, value: str
) -> None:
    text = RECIPE + f"push: {{repo: me/it, models: [eight], {value}}}\n"
    assert f"push.{value.partition(':')[0]}" in complaints(write(text))
