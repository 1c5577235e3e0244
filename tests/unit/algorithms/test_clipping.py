"""A searched grid never makes more error in a layer's output than the one it starts from."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from quantship.algorithms.clipping import searched_grid
from quantship.quant import numerics
from quantship.quant.numerics import Grid, choose_grid
from quantship.quant.scheme import WeightFormat

FORMATS: dict[str, dict[str, Any]] = {
    "groups": {"bits": 4, "group_size": 16, "scale_dtype": "bfloat16"},
    "asymmetric": {"bits": 3, "group_size": 32, "symmetric": False},
    "channels": {"bits": 4},
    "wide": {"bits": 8},
    "tensor": {"bits": 8, "granularity": "per_tensor"},
}


def output_error(weight_OI: Tensor, tokens_TI: Tensor, fmt: WeightFormat, grid: Grid) -> Tensor:
    """Squared error (O) of each output feature."""
    rounded_OI = numerics.dequantize(numerics.round_to(weight_OI, grid, fmt))
    return (tokens_TI @ (rounded_OI - weight_OI).T).square().sum(dim=0)


def sample() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    weight_OI = torch.randn(24, 64, generator=generator)
    weight_OI[:, ::13] *= 6
    return weight_OI, torch.randn(40, 64, generator=generator) * torch.linspace(0.1, 3, 64)


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("num_tokens", [40, 5])
def test_one_group_a_row_gets_no_worse_and_some_better(kind: str, num_tokens: int) -> None:
    fmt = WeightFormat.model_validate(FORMATS[kind])
    weight_OI, tokens_TI = sample()
    size = fmt.group_size or 64
    weight_OI, tokens_TI = weight_OI[:, :size].contiguous(), tokens_TI[:num_tokens, :size]
    start = choose_grid(weight_OI, fmt)
    found = searched_grid(weight_OI, tokens_TI, fmt, start)
    assert found.scale.shape == start.scale.shape
    before_O = output_error(weight_OI, tokens_TI, fmt, start)
    after_O = output_error(weight_OI, tokens_TI, fmt, found)
    if kind == "tensor":  # rows share a range
        before_O, after_O = before_O.sum(), after_O.sum()
    assert bool((after_O <= before_O * (1 + 1e-4)).all())
    assert float(after_O.sum()) < 0.97 * float(before_O.sum())


def test_rows_in_parts_are_rows_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    fmt = WeightFormat.model_validate(FORMATS["asymmetric"])
    weight_OI, tokens_TI = sample()
    whole = searched_grid(weight_OI, tokens_TI, fmt, choose_grid(weight_OI, fmt))
    monkeypatch.setattr(numerics, "CACHED_NUMBERS", 5 * 64)
    parts = searched_grid(weight_OI, tokens_TI, fmt, choose_grid(weight_OI, fmt))
    assert torch.equal(whole.scale, parts.scale)
    assert whole.zero is not None
    assert parts.zero is not None
    assert torch.equal(whole.zero, parts.zero)


@pytest.mark.parametrize("kind", FORMATS)
def test_inputs_that_are_all_zero_leave_the_grid_as_it_was(kind: str) -> None:
    fmt = WeightFormat.model_validate(FORMATS[kind])
    weight_OI, tokens_TI = sample()
    start = choose_grid(weight_OI, fmt)
    found = searched_grid(weight_OI, torch.zeros_like(tokens_TI), fmt, start)
    assert torch.equal(found.scale, start.scale)


def test_scales_are_numbers_that_the_file_holds() -> None:
    fmt = WeightFormat.model_validate(FORMATS["groups"])
    weight_OI, tokens_TI = sample()
    scale_OG = searched_grid(weight_OI, tokens_TI, fmt, choose_grid(weight_OI, fmt)).scale
    assert torch.equal(scale_OG, scale_OG.bfloat16().float())
