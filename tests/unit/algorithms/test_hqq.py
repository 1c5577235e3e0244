from __future__ import annotations

from typing import get_args

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from quantship.algorithms import hqq
from quantship.algorithms.block import Block
from quantship.quant.numerics import (
    CACHED_NUMBERS,
    Grid,
    choose_grid,
    code_range,
    dequantize,
    grouped,
    round_to,
)
from quantship.quant.ranges import find_grid
from quantship.quant.scheme import LayerFormat, RangeName, WeightFormat

pytestmark = pytest.mark.usefixtures("one_thread")

FORMATS = [
    WeightFormat(bits=4, group_size=32),
    WeightFormat(bits=4, group_size=32, symmetric=False),
    WeightFormat(bits=4, group_size=64, scale_dtype="bfloat16"),
    WeightFormat(bits=2, group_size=32, symmetric=False, scale_dtype="bfloat16"),
    WeightFormat(bits=3),
    WeightFormat(bits=8, granularity="per_tensor"),
]
ids = [
    "g32",
    "g32-asymmetric",
    "g64-bfloat16",
    "2-bit",
    "per-channel",
    "per-tensor",
]


def weights(seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    weight_OI = torch.randn(12, 128, generator=generator) ** 3 / 50
    weight_OI[0, 0] = 3.0
    return weight_OI


def norm(weight_OI: torch.Tensor, grid: Grid, fmt: WeightFormat, p: float) -> torch.Tensor:
    """The l_p norm of each group's rounding error, to the p, in double precision."""
    error_OI = dequantize(round_to(weight_OI, grid, fmt)) - weight_OI
    return grouped(error_OI.double().abs().pow(p), fmt).sum(dim=-1)


@pytest.mark.parametrize("reach", get_args(RangeName))
@pytest.mark.parametrize("fmt", FORMATS, ids=ids)
@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 1000), p=st.sampled_from([0.3, 0.7, 1.0]))
def test_no_group_ends_worse_than_it_began(
    fmt: WeightFormat, reach: RangeName, seed: int, p: float
) -> None:
    weight_OI = weights(seed)
    start = find_grid(weight_OI, fmt, reach)
    found = hqq.improve(weight_OI, start, fmt, hqq.Options(norm=p))
    assert (norm(weight_OI, found, fmt, p) <= norm(weight_OI, start, fmt, p) * (1 + 1e-5)).all()


@pytest.mark.parametrize("fmt", FORMATS[:5], ids=ids[:5])
def test_it_gains_on_long_tails(fmt: WeightFormat) -> None:
    weight_OI, options = weights(), hqq.Options()
    start = choose_grid(weight_OI, fmt)
    found = hqq.improve(weight_OI, start, fmt, options)
    before, after = (norm(weight_OI, grid, fmt, options.norm).sum() for grid in (start, found))
    assert after < 0.98 * before


@pytest.mark.parametrize("fmt", FORMATS, ids=ids)
def test_more_steps_are_never_worse(fmt: WeightFormat) -> None:
    weight_OI, start = weights(1), choose_grid(weights(1), fmt)
    norms = [
        float(norm(weight_OI, hqq.improve(weight_OI, start, fmt, options), fmt, 0.7).sum())
        for options in (hqq.Options(iterations=count) for count in (1, 5, 20))
    ]
    assert norms == sorted(norms, reverse=True)


@pytest.mark.parametrize("fmt", FORMATS, ids=ids)
def test_grids_are_such_as_files_hold(fmt: WeightFormat) -> None:
    weight_OI, start = weights(2), choose_grid(weights(2), fmt)
    found = hqq.improve(weight_OI, start, fmt, hqq.Options())
    assert found.scale.shape == start.scale.shape
    assert found.scale.dtype == start.scale.dtype
    if fmt.scale_dtype == "bfloat16":
        assert torch.equal(found.scale, found.scale.bfloat16().float())
    assert (found.zero is None) == fmt.symmetric
    if found.zero is not None:
        low, high = code_range(fmt.bits)
        assert torch.equal(found.zero, found.zero.round())
        assert ((found.zero >= low) & (found.zero <= high)).all()
        assert (found.scale > 0).all()


@pytest.mark.parametrize("fmt", FORMATS, ids=ids)
def test_zeros_are_left_alone(fmt: WeightFormat) -> None:
    weight_OI = torch.zeros(4, 128)
    found = hqq.improve(weight_OI, choose_grid(weight_OI, fmt), fmt, hqq.Options())
    assert found.scale.isfinite().all()
    assert not dequantize(round_to(weight_OI, found, fmt)).any()


@pytest.mark.parametrize("fmt", FORMATS, ids=ids)
def test_weights_of_any_size_are_treated_alike(fmt: WeightFormat) -> None:
    small_OI = weights(3) / 64
    one, other = (
        hqq.improve(weight_OI, choose_grid(weight_OI, fmt), fmt, hqq.Options())
        for weight_OI in (small_OI, small_OI * 1024)
    )
    assert torch.equal(one.scale * 1024, other.scale)
    if one.zero is not None and other.zero is not None:
        assert torch.equal(one.zero, other.zero)


@pytest.mark.parametrize("fmt", FORMATS[:2], ids=ids[:2])
def test_rows_do_not_depend_on_each_other(fmt: WeightFormat) -> None:
    weight_OI = torch.randn(CACHED_NUMBERS // 1024 + 3, 1024)
    whole = hqq.improve(weight_OI, choose_grid(weight_OI, fmt), fmt, hqq.Options(iterations=3))
    last_OI = weight_OI[-2:]
    alone = hqq.improve(last_OI, choose_grid(last_OI, fmt), fmt, hqq.Options(iterations=3))
    assert whole.scale.shape == (len(weight_OI), 32)
    torch.testing.assert_close(whole.scale[-2:], alone.scale, rtol=1e-6, atol=0)


def test_a_block_is_settled_without_data() -> None:
    torch.manual_seed(0)
    fmt = LayerFormat(weight=FORMATS[0])
    module = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 32)).requires_grad_(False)
    weight_OI = module[0].weight.clone()  # type: ignore[operator, union-attr]
    block = Block("layer", module, {"layer.0": fmt, "layer.2": fmt})
    remarks = hqq.quantize(block, hqq.Options(), choose_grid)
    assert remarks == []
    assert block.settled().keys() == {"layer.0", "layer.2"}
    grid = hqq.improve(weight_OI, choose_grid(weight_OI, fmt.weight), fmt.weight, hqq.Options())
    codes = block.settled()["layer.0"].rounding.codes(block.weight("layer.0"))
    assert torch.equal(codes.codes_OI, round_to(weight_OI, grid, fmt.weight).codes_OI)
