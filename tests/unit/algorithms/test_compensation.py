"""The arithmetic of GPTQ; test_gptq.py holds it against the paper."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from quantship.algorithms import compensation
from quantship.quant import numerics
from quantship.quant.numerics import Grid, choose_grid, dequantize, round_to
from quantship.quant.ranges import find_grid
from quantship.quant.scheme import WeightFormat

pytestmark = pytest.mark.usefixtures("one_thread")

WIDTH = 32
FORMATS = [
    WeightFormat(bits=4),
    WeightFormat(bits=2, group_size=8),
    WeightFormat(bits=4, group_size=8, symmetric=False),
    WeightFormat(bits=4, group_size=16, scale_dtype="bfloat16"),
    WeightFormat(bits=6, symmetric=False, scale_dtype="bfloat16"),
    WeightFormat(bits=8),
    WeightFormat(bits=8, granularity="per_tensor"),
]
formats = pytest.mark.parametrize("fmt", FORMATS, ids=str)


def a_weight() -> Tensor:
    return torch.randn(24, WIDTH, generator=torch.Generator().manual_seed(0))


@settings(deadline=None, max_examples=150)
@given(data=st.data())
def test_numbers_are_those_of_their_nearest_codes(data: st.DataObject) -> None:
    granularity: Any = data.draw(st.sampled_from(["per_tensor", "per_channel", "per_group"]))
    fmt = WeightFormat(
        bits=data.draw(st.integers(2, 8)),
        granularity=granularity,
        group_size=data.draw(st.sampled_from([1, 4, 8])) if granularity == "per_group" else None,
        symmetric=data.draw(st.booleans()),
        scale_dtype=data.draw(st.sampled_from(["float32", "bfloat16"])),
    )
    random = torch.Generator().manual_seed(data.draw(st.integers(0, 2**31)))
    weight_OI = torch.randn(3, 24, generator=random) + data.draw(st.sampled_from([0.0, -3.0, 5.0]))
    weight_OI *= 2.0 ** data.draw(st.integers(-100, 60))
    weight_OI[0, data.draw(st.integers(0, 23))] = 0.0
    reach: Any = data.draw(st.sampled_from(["minmax", "mse", "outermost", "searched"]))
    squares_I = torch.rand(24, generator=random) + 0.01
    grid = (
        compensation.weighted_grid(weight_OI, squares_I, fmt)
        if reach == "searched"
        else find_grid(weight_OI, fmt, reach)
    )
    factor_II = torch.randn(24, 24, generator=random).tril(-1) + torch.eye(24)
    group = 24 // grid.scale.shape[1]
    numbers_OI = compensation.round_columns(
        weight_OI.T.contiguous(), factor_II, grid, [column // group for column in range(24)], fmt
    ).T.contiguous()
    assert torch.equal(dequantize(round_to(numbers_OI, grid, fmt)), numbers_OI)


@pytest.mark.parametrize(
    ("off", "share"), [(0.5, 0.01), (1.05, 0.1), (1.5, 1.0), (2.5, None)], ids=str
)
def test_damping_is_raised_tenfold_up_to_one(off: float, share: float | None) -> None:
    hessian_II = torch.tensor([[1.0, off], [off, 1.0]])
    factor_II, found = compensation.factor(hessian_II, 0.01)
    assert found == (1.0 if share is None else share)
    assert hessian_II[0, 0] == pytest.approx(1 + found)
    assert (factor_II is None) == (share is None)


@formats
def test_the_searched_grid_is_no_worse_than_the_whole_range(fmt: WeightFormat) -> None:
    weight_OI = a_weight()
    squares_I = torch.logspace(-2, 1, WIDTH)
    weights_I = squares_I.pow(compensation.WEIGHT_POWER)

    def error(grid: Grid) -> Tensor:
        difference_OI = dequantize(round_to(weight_OI, grid, fmt)) - weight_OI
        return numerics.grouped(difference_OI.square() * weights_I, fmt).sum(dim=-1)

    # The grid that the search begins with: on its longer end, the outermost weight.
    grouped_OGS = numerics.grouped(weight_OI, fmt)
    outermost_OG = grouped_OGS.gather(-1, grouped_OGS.abs().argmax(-1, keepdim=True)).squeeze(-1)
    signed = fmt.symmetric and fmt.bits < 8
    whole = choose_grid(weight_OI, fmt)
    if signed:
        whole = numerics.grid_to_end(outermost_OG, -(1 << (fmt.bits - 1)), fmt)
    searched = compensation.weighted_grid(weight_OI, squares_I, fmt)
    assert bool((error(searched) <= 1.0001 * error(whole)).all())
    assert bool((searched.scale > 0).all()) != signed
    assert fmt.bits > 4 or error(searched).sum() < 0.97 * error(choose_grid(weight_OI, fmt)).sum()


@formats
def test_the_search_may_go_in_parts(fmt: WeightFormat, monkeypatch: pytest.MonkeyPatch) -> None:
    weight_OI, squares_I = a_weight(), torch.linspace(0.1, 2, WIDTH)
    whole = compensation.weighted_grid(weight_OI, squares_I, fmt)
    monkeypatch.setattr(numerics, "CACHED_NUMBERS", 5 * WIDTH)
    parts = compensation.weighted_grid(weight_OI, squares_I, fmt)
    assert torch.equal(whole.scale, parts.scale)
    assert (whole.zero is None) == (parts.zero is None)
    assert whole.zero is None or torch.equal(whole.zero, parts.zero)  # type: ignore[arg-type]
