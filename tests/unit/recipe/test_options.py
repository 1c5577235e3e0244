from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from quantship.recipe import load

Write = Callable[..., Path]
Complaints = Callable[..., str]
HEAD = """\
model: {tiny: {}}
data: {train: [{adapter: builtin}], eval: [{adapter: builtin}]}
scheme: w8a8
"""


@pytest.mark.parametrize(
    ("step", "said"),
    [
        ("stage: quantize, percentile: 99", "steps.0.percentile: percentile says nothing beside"),
        ("stage: qat, scales: fixed, percentile: 99", "beside range minmax\n    Set `range"),
        (
            "stage: qat, scales: learned, range: outermost",
            "steps.0.range: range outermost finds scales of either sign",
        ),
        ("stage: qat, range: mse", "steps.0.range: range mse goes with fixed or learned scales"),
        (
            "stage: quantize, calibration: {sequences: 4}",
            "steps.0.calibration: calibration finds static input ranges, and scheme 'w8a8' has "
            "none: it takes them from each input; nor does algorithm rtn look at data\n"
            "    Leave calibration out, choose an algorithm that needs it, or choose a scheme",
        ),
        (
            "stage: qat, scheme: w8a16, calibration: {range: mse}",
            "scheme 'w8a16' has none: it leaves inputs in float",
        ),
        (
            "stage: qat, scheme: w8a8-static, calibration: {percentile: 99}",
            "steps.0.calibration.percentile: percentile says nothing beside range moving_average",
        ),
    ],
)
def test_options_that_nobody_would_read_are_refused(
    write: Write, complaints: Complaints, step: str, said: str
) -> None:
    text = HEAD + f"steps: [{{{step}}}]\n"
    assert said in complaints(write(text))
    assert complaints(write(text)).count("steps.0") == 1


@pytest.mark.parametrize(
    "step",
    [
        "stage: quantize, range: percentile, percentile: 99",
        "stage: quantize, range: mse, percentile: 99.9",
        "stage: qat, scales: fixed, range: outermost",
        "stage: qat, scales: learned, range: mse",
        "stage: qat, scheme: w8a8-static, calibration: {range: percentile, percentile: 99}",
        "stage: quantize, scheme: w8a8, calibration: {sequences: 32}",
    ],
)
def test_options_that_go_together_pass(write: Write, step: str) -> None:
    load(write(HEAD + f"steps: [{{{step}}}]\n"))


def test_an_override_with_static_ranges_is_calibrated(write: Write) -> None:
    static = "{granularity: per_tensor, ranges: static}"
    override = f"{{layers: '*.down_proj', weight: {{bits: 8}}, activation: {static}}}"
    own = f"schemes: {{mine: {{base: w8a16, overrides: [{override}]}}}}\n"
    load(
        write(HEAD + own + "steps: [{stage: quantize, scheme: mine, calibration: {range: mse}}]\n")
    )


def test_calibrating_needs_training_data(write: Write, complaints: Complaints) -> None:
    steps = "steps: [{stage: quantize, scheme: w8a8-static}, {stage: quantize, name: b}]\n"
    text = (HEAD + steps).replace("train: [{adapter: builtin}], ", "")
    assert "data.train: nothing to calibrate on, and quantize would" in complaints(write(text))
