from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from quantship.quant.numerics import (
    Codes,
    choose_scale,
    code_range,
    dequantize,
    fake_quantize_tokens,
    fake_quantize_weight,
    quantize,
    round_to_nearest,
)
from quantship.quant.scheme import WeightFormat

formats = st.builds(
    WeightFormat, bits=st.integers(2, 8), group_size=st.sampled_from([None, 4, 8, 24])
)
finite = st.floats(-1e6, 1e6, width=32)


@st.composite
def matrices(draw: st.DrawFn, width: int = 24) -> Tensor:
    rows = draw(st.lists(st.lists(finite, min_size=width, max_size=width), min_size=1, max_size=3))
    return torch.tensor(rows)


def per_element(codes: Codes) -> Tensor:
    return codes.scale_OG.repeat_interleave(
        codes.codes_OI.shape[1] // codes.scale_OG.shape[1], dim=1
    )


@pytest.mark.parametrize(("bits", "limits"), [(2, (-2, 1)), (4, (-8, 7)), (8, (-128, 127))])
def test_code_range_is_that_of_signed_integers(bits: int, limits: tuple[int, int]) -> None:
    assert code_range(bits) == limits


@settings(deadline=None)
@given(weight=matrices(), fmt=formats)
def test_nothing_moves_by_more_than_half_a_step(weight: Tensor, fmt: WeightFormat) -> None:
    codes = round_to_nearest(weight, fmt)
    error = (dequantize(codes).double() - weight.double()).abs()
    assert (error <= per_element(codes).double() * 0.5 * (1 + 1e-4)).all()


@settings(deadline=None)
@given(weight=matrices(), fmt=formats)
def test_codes_are_small_integers_of_the_weights_shape(weight: Tensor, fmt: WeightFormat) -> None:
    codes = round_to_nearest(weight, fmt)
    low, high = code_range(fmt.bits)
    assert codes.codes_OI.dtype == torch.int8
    assert codes.codes_OI.shape == weight.shape
    assert low <= int(codes.codes_OI.min())
    assert int(codes.codes_OI.max()) <= high
    assert codes.scale_OG.shape == (len(weight), 24 // (fmt.group_size or 24))
    assert codes.scale_OG.dtype == weight.dtype
    assert (codes.scale_OG > 0).all()


@settings(deadline=None)
@given(weight=matrices(), fmt=formats)
def test_quantizing_again_under_the_same_scales_changes_no_code(
    weight: Tensor, fmt: WeightFormat
) -> None:
    codes = round_to_nearest(weight, fmt)
    assert torch.equal(quantize(dequantize(codes), codes.scale_OG, fmt), codes.codes_OI)


@settings(deadline=None)
@given(weight=matrices(), fmt=formats)
def test_rows_do_not_know_of_each_other(weight: Tensor, fmt: WeightFormat) -> None:
    together = fake_quantize_weight(weight, fmt)
    alone = torch.cat([fake_quantize_weight(row[None], fmt) for row in weight])
    assert torch.equal(together, alone)


@settings(deadline=None)
@given(weight=matrices(), bits=st.integers(2, 8))
def test_one_group_a_row_is_no_groups(weight: Tensor, bits: int) -> None:
    grouped = round_to_nearest(weight, WeightFormat(bits=bits, group_size=24))
    whole = round_to_nearest(weight, WeightFormat(bits=bits))
    assert torch.equal(grouped.codes_OI, whole.codes_OI)
    assert torch.equal(grouped.scale_OG, whole.scale_OG)


def test_an_all_zero_row_stays_zero() -> None:
    weight = torch.zeros(2, 8)
    codes = round_to_nearest(weight, WeightFormat(bits=4))
    assert not codes.codes_OI.any()
    assert not dequantize(codes).any()
    assert not fake_quantize_tokens(weight).any()


@pytest.mark.parametrize("function", [choose_scale, round_to_nearest, fake_quantize_weight])
def test_groups_that_do_not_divide_are_refused_with_both_numbers(function: object) -> None:
    with pytest.raises(ValueError, match=r"32 does not divide 48"):
        function(torch.ones(2, 48), WeightFormat(bits=4, group_size=32))  # type: ignore[operator]


@settings(deadline=None)
@given(tokens=matrices())
def test_tokens_move_by_one_step_at_most_and_zero_not_at_all(tokens: Tensor) -> None:
    tokens[:, 0] = 0.0
    low, high = tokens.amin(dim=-1, keepdim=True), tokens.amax(dim=-1, keepdim=True)
    step = ((high - low) / 255).double()
    quantized = fake_quantize_tokens(tokens)
    # Half a step by rounding, and half a step where rounding the zero point clips an end.
    assert ((quantized - tokens).abs().double() <= step * (1 + 1e-5) + 1e-37).all()
    assert not quantized[:, 0].any()
    assert all(len(row.unique()) <= 256 for row in quantized)


@settings(deadline=None)
@given(tokens=matrices())
def test_tokens_do_not_know_of_each_other_in_any_shape(tokens: Tensor) -> None:
    alone = torch.cat([fake_quantize_tokens(row) for row in tokens])
    assert torch.equal(fake_quantize_tokens(tokens).flatten(), alone)
    assert torch.equal(fake_quantize_tokens(tokens[None, :, None]).flatten(), alone)
