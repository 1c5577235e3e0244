"""What quantship computes is, to the bit, what torchao computes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F
from torchao.quantization import IntxUnpackedToInt8Tensor
from torchao.quantization.quant_primitives import (
    MappingType,
    choose_qparams_affine,
    dequantize_affine,
    quantize_affine,
)

from quantship.quant.numerics import (
    choose_scale,
    dequantize,
    fake_quantize_tokens,
    fake_quantize_weight,
    quantize,
    round_to_nearest,
)
from quantship.quant.scheme import WeightFormat

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
BITS = range(2, 9)
GROUPS = (None, 16, 32, 64, 128)
WIDTH = 128
AS_INTEGERS = {torch.float32: torch.int32, torch.bfloat16: torch.int16, torch.float16: torch.int16}


def noise(seed: int) -> Tensor:
    return torch.randn(WIDTH, generator=torch.Generator().manual_seed(seed))


def ties(seed: int) -> Tensor:
    """Values that fall half-way between two codes of 8 bits, under a scale of exactly 1/16."""
    halves = torch.randint(-127, 127, (WIDTH,), generator=torch.Generator().manual_seed(seed)) + 0.5
    halves[0] = 127.5
    return halves / 16


def near_ties(seed: int) -> Tensor:
    """Values whose last bits decide between two codes: dividing by a scale is not multiplying."""
    step = noise(seed)[0].abs() + 0.1
    values = ties(seed) * 16 * step
    values[:2] = torch.tensor([127.0, -128.0]) * step
    return values


def outlier(seed: int) -> Tensor:
    row = noise(seed)
    row[seed % WIDTH] = 5e3
    return row


ROWS = {
    "noise": lambda seed, dtype: noise(seed),
    "zero": lambda seed, dtype: torch.zeros(WIDTH),
    "negative zero": lambda seed, dtype: -torch.zeros(WIDTH),
    "sparse": lambda seed, dtype: noise(seed) * (noise(seed + 1) > 1.5),
    "constant": lambda seed, dtype: noise(seed)[:1].expand(WIDTH),
    "negative": lambda seed, dtype: -noise(seed).abs(),
    "positive": lambda seed, dtype: noise(seed).abs(),
    "denormal": lambda seed, dtype: noise(seed) * (torch.finfo(dtype).smallest_normal / 8),
    "almost denormal": lambda seed, dtype: noise(seed) * (torch.finfo(dtype).smallest_normal * 64),
    "huge": lambda seed, dtype: noise(seed).clamp(-4, 4) * (torch.finfo(dtype).max / 10),
    "outlier": lambda seed, dtype: outlier(seed),
    "ties": lambda seed, dtype: ties(seed),
    "near ties": lambda seed, dtype: near_ties(seed),
}


@st.composite
def rows(draw: st.DrawFn, dtype: torch.dtype) -> Tensor:
    """A few rows of very different sizes."""
    kinds = draw(st.lists(st.sampled_from(sorted(ROWS)), min_size=1, max_size=4))
    seeds = [draw(st.integers(0, 2**31)) for _ in kinds]
    values = torch.stack([ROWS[kind](seed, dtype) for kind, seed in zip(kinds, seeds, strict=True)])
    return values.to(dtype)


def assert_same_bits(first: Tensor, second: Tensor) -> None:
    assert (first.dtype, first.shape) == (second.dtype, second.shape)
    view = AS_INTEGERS.get(first.dtype, first.dtype)
    assert torch.equal(first.contiguous().view(view), second.contiguous().view(view))


def torchao_weight(weight: Tensor, fmt: WeightFormat) -> Any:
    block = (1, fmt.group_size or weight.shape[-1])
    return IntxUnpackedToInt8Tensor.from_hp(weight, block, getattr(torch, f"int{fmt.bits}"))


def torchao_tokens(tokens: Tensor) -> Tensor:
    block = (*(1 for _ in tokens.shape[:-1]), tokens.shape[-1])
    limits: Any = {"quant_min": -128, "quant_max": 127}
    scale, zero_point = choose_qparams_affine(
        tokens, MappingType.ASYMMETRIC, block, torch.int8, zero_point_dtype=torch.int8, **limits
    )
    codes = quantize_affine(tokens, block, scale, zero_point, torch.int8, **limits)
    result: Tensor = dequantize_affine(
        codes, block, scale, zero_point, torch.int8, output_dtype=tokens.dtype, **limits
    )
    return result


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_weight_codes_scales_and_values_are_torchaos(dtype: torch.dtype, bits: int) -> None:
    @settings(max_examples=25, deadline=None)
    @given(weight=rows(dtype))
    def check(weight: Tensor) -> None:
        for group in GROUPS:
            fmt = WeightFormat(bits=bits, group_size=group)
            theirs = torchao_weight(weight, fmt)
            assert not theirs.zero_point.any()
            scale = choose_scale(weight, fmt)
            assert_same_bits(scale, theirs.scale)
            assert_same_bits(quantize(weight, scale, fmt), theirs.qdata)
            ours = round_to_nearest(weight, fmt)
            assert_same_bits(ours.codes_OI, theirs.qdata)
            assert_same_bits(ours.scale_OG, theirs.scale)
            assert_same_bits(dequantize(ours), theirs.dequantize())
            assert_same_bits(fake_quantize_weight(weight, fmt), theirs.dequantize())

    check()


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_codes_under_any_given_scale_are_torchaos(dtype: torch.dtype, bits: int) -> None:
    @settings(max_examples=10, deadline=None)
    @given(weight=rows(dtype), factor=st.sampled_from([0.25, 0.9, 1.0, 1.7, 8.0]))
    def check(weight: Tensor, factor: float) -> None:
        for group in GROUPS:
            fmt = WeightFormat(bits=bits, group_size=group)
            scale = (choose_scale(weight, fmt) * factor).clamp(
                min=torch.finfo(dtype).smallest_normal
            )
            theirs = quantize_affine(
                weight,
                (1, group or WIDTH),
                scale,
                torch.zeros_like(scale, dtype=torch.int8),
                torch.int8,
                -(2 ** (bits - 1)),
                2 ** (bits - 1) - 1,
            )
            assert_same_bits(quantize(weight, scale, fmt), theirs)

    check()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_fake_quantized_tokens_are_torchaos(dtype: torch.dtype) -> None:
    @settings(max_examples=200, deadline=None)
    @given(tokens=rows(dtype))
    def check(tokens: Tensor) -> None:
        assert_same_bits(fake_quantize_tokens(tokens), torchao_tokens(tokens))
        batch = torch.stack([tokens, tokens.flip(0)])
        assert_same_bits(fake_quantize_tokens(batch), torchao_tokens(batch))

    check()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_fake_quantized_tokens_are_what_a_torchao_layer_sees(dtype: torch.dtype) -> None:
    tokens = torch.stack([ROWS[kind](7, dtype) for kind in sorted(ROWS)]).to(dtype)
    identity = IntxUnpackedToInt8Tensor(
        torch.eye(WIDTH, dtype=torch.int8),
        torch.ones(WIDTH, 1, dtype=dtype),
        torch.zeros(WIDTH, 1, dtype=torch.int8),
        torch.int8,
        (1, WIDTH),
        dtype,
        "int8_asym_per_token",
    )
    assert torch.equal(F.linear(tokens, identity), fake_quantize_tokens(tokens))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_gradients_pass_straight_through(dtype: torch.dtype) -> None:
    @settings(max_examples=25, deadline=None)
    @given(values=rows(dtype), seed=st.integers(0, 2**31))
    def check(values: Tensor, seed: int) -> None:
        incoming = torch.randn(values.shape, generator=torch.Generator().manual_seed(seed))
        incoming = incoming.to(dtype)
        leaf = values.clone().requires_grad_()
        for fake_quantized in (
            fake_quantize_tokens(leaf),
            fake_quantize_weight(leaf, WeightFormat(bits=3, group_size=32)),
        ):
            (arrived,) = torch.autograd.grad(fake_quantized, leaf, incoming)
            assert_same_bits(arrived, incoming)

    check()


def test_inputs_are_left_as_they_were() -> None:
    values = torch.stack([ROWS[kind](3, torch.float32) for kind in sorted(ROWS)])
    before = values.clone()
    fmt = WeightFormat(bits=4, group_size=16)
    fake_quantize_tokens(values)
    fake_quantize_weight(values, fmt)
    codes = round_to_nearest(values, fmt)
    dequantize(codes)
    assert_same_bits(values, before)
    assert torch.equal(codes.codes_OI, round_to_nearest(before, fmt).codes_OI)
