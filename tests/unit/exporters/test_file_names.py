from __future__ import annotations

import pytest

from quantship.exporters.file_names import file_name
from quantship.quant.scheme import SCHEMES


@pytest.mark.parametrize(
    ("scheme", "stem", "dtype"),
    [
        (None, "model", "fp32"),
        ("w8a8", "model_quantized", "q8"),
        ("w8a8-static", "model_quantized", "q8"),
        ("w8a16", "model_int8", "int8"),
        ("w4a8", "model_q4", "q4"),
        ("w4a16-g32", "model_q4", "q4"),
        ("w2a16-g32", "model_w2a16-g32", None),
    ],
)
def test_names_are_those_of_transformers_js(
    scheme: str | None, stem: str, dtype: str | None
) -> None:
    assert file_name(SCHEMES[scheme] if scheme else None) == (stem, dtype)
