from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from quantship.quant.rounding_error import RoundingError


@given(st.integers(1, 8), st.integers(1, 8))
def test_rows_in_parts_are_the_matrix_as_a_whole(cut: int, seed: int) -> None:
    torch.manual_seed(seed)
    weight_OI = torch.randn(9, 5)
    rounded_OI = weight_OI.round()
    error = RoundingError()
    for rows in (slice(0, cut), slice(cut, None)):
        error.add(weight_OI[rows], rounded_OI[rows])
    whole = float((rounded_OI - weight_OI).norm() / weight_OI.norm())
    assert error.relative == pytest.approx(whole, rel=1e-5)


def test_what_is_exact_has_no_error_nor_have_zeros() -> None:
    error = RoundingError()
    assert error.relative == 0
    error.add(torch.zeros(2, 2), torch.zeros(2, 2))
    assert error.relative == 0
    error.add(torch.ones(2, 2), torch.ones(2, 2))
    assert error.relative == 0
