from __future__ import annotations

import pytest

from quantship.quant.scheme import ActivationFormat
from quantship.reporting import arithmetic


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
    assert arithmetic.describe(activation) == text
