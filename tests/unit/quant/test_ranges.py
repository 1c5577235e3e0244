from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from quantship.quant.numerics import Grid, choose_grid, code_range, dequantize, round_to
from quantship.quant.ranges import find_grid
from quantship.quant.scheme import WeightFormat

FORMATS = [
    WeightFormat(bits=4, group_size=32),
    WeightFormat(bits=4, group_size=32, symmetric=False),
    WeightFormat(bits=4, group_size=32, scale_dtype="bfloat16"),
    WeightFormat(bits=3),
    WeightFormat(bits=8, granularity="per_tensor"),
]


def error(weight_OI: torch.Tensor, grid: Grid, fmt: WeightFormat) -> float:
    return float((dequantize(round_to(weight_OI, grid, fmt)) - weight_OI).square().sum())


def weights(seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    weight_OI = torch.randn(8, 128, generator=generator)
    weight_OI[0, 0] = 30.0
    return weight_OI


@pytest.mark.parametrize("fmt", FORMATS, ids=repr)
@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000))
def test_the_search_never_does_worse_than_the_whole_range(fmt: WeightFormat, seed: int) -> None:
    weight_OI = weights(seed)
    found = find_grid(weight_OI, fmt, "mse")
    assert error(weight_OI, found, fmt) <= error(weight_OI, choose_grid(weight_OI, fmt), fmt)


def test_the_search_gains_where_there_is_an_outlier() -> None:
    weight_OI, fmt = weights(0), WeightFormat(bits=3)
    whole = error(weight_OI, choose_grid(weight_OI, fmt), fmt)
    assert error(weight_OI, find_grid(weight_OI, fmt, "mse"), fmt) < 0.95 * whole


@pytest.mark.parametrize("fmt", FORMATS, ids=repr)
def test_all_of_the_numbers_are_the_whole_range(fmt: WeightFormat) -> None:
    found, whole = find_grid(weights(1), fmt, "percentile", 100), choose_grid(weights(1), fmt)
    assert torch.equal(found.scale, whole.scale)
    assert (found.zero is None) == fmt.symmetric


def test_a_percentile_clips_the_outermost_numbers() -> None:
    weight_OI, fmt = weights(2), WeightFormat(bits=8)
    found = find_grid(weight_OI, fmt, "percentile", 99)
    assert found.scale[0] < choose_grid(weight_OI, fmt).scale[0] / 5
    inside = weight_OI.abs() <= found.scale * 128
    assert 0.97 < float(inside.float().mean()) < 1


def test_minmax_is_the_range_that_training_uses() -> None:
    fmt = FORMATS[0]
    assert torch.equal(find_grid(weights(3), fmt).scale, choose_grid(weights(3), fmt).scale)


SYMMETRIC = [fmt for fmt in FORMATS if fmt.symmetric]


@pytest.mark.parametrize("fmt", SYMMETRIC, ids=repr)
@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000))
def test_the_outermost_weight_is_an_end_of_its_grid(fmt: WeightFormat, seed: int) -> None:
    weight_OI = weights(seed)
    grid = find_grid(weight_OI, fmt, "outermost")
    codes = round_to(weight_OI, grid, fmt)
    shape = (*grid.scale.shape, -1)
    at = weight_OI.view(shape).abs().argmax(dim=-1, keepdim=True)
    reached = codes.codes_OI.view(shape).gather(-1, at)
    ends = code_range(fmt.bits)
    assert set(reached.flatten().tolist()) <= set(ends)
    if grid.scale.numel() > 8:
        assert (grid.scale < 0).any()
        assert (grid.scale > 0).any()
    outermost = weight_OI.view(shape).gather(-1, at)
    restored = dequantize(codes).view(shape).gather(-1, at)
    precision = 2**-8 if fmt.scale_dtype == "bfloat16" else 1e-6
    torch.testing.assert_close(restored.float(), outermost, rtol=precision, atol=0)


def test_the_outermost_weight_beats_the_whole_range_in_few_bits() -> None:
    weight_OI, fmt = torch.randn(64, 256), WeightFormat(bits=4, group_size=32)
    whole = error(weight_OI, choose_grid(weight_OI, fmt), fmt)
    assert error(weight_OI, find_grid(weight_OI, fmt, "outermost"), fmt) < whole


def test_rows_of_zeros_have_the_least_scale_there_is() -> None:
    fmt = WeightFormat(bits=4, group_size=32)
    weight_OI = torch.zeros(2, 64)
    grid = find_grid(weight_OI, fmt, "outermost")
    assert (grid.scale > 0).all()
    assert not dequantize(round_to(weight_OI, grid, fmt)).any()
