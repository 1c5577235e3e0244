"""What quantship computes is, to the bit, what torchao computes."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F
from torchao.quantization import (
    Int8Tensor,
    IntxUnpackedToInt8Tensor,
    MappingType,
    PerRow,
    PerTensor,
)
from torchao.quantization.quant_primitives import (
    choose_qparams_affine,
    dequantize_affine,
    quantize_affine,
)
from torchao.quantization.quantize_.common import _choose_quant_func_and_quantize_tensor
from torchao.quantization.quantize_.workflows import QuantizeTensorToInt8Kwargs
from torchao.quantization.quantize_.workflows.intx.intx_unpacked_to_int8_tensor import (
    _apply_int8_act_asym_per_token_quant_dequant,
)

from quantship.quant.numerics import (
    Grid,
    choose_grid,
    code_range,
    dequantize,
    dynamic_grid,
    fake_quantize_input,
    fake_quantize_weight,
    input_codes,
    input_grid,
    quantize,
    round_to_nearest,
)
from quantship.quant.scheme import ActivationFormat, WeightFormat

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
BITS = range(2, 9)
SHARED: tuple[dict[str, Any], ...] = (
    {"granularity": "per_tensor"},
    {"granularity": "per_channel"},
    *({"group_size": size} for size in (16, 32, 64, 128)),
)
"""What shares a scale."""
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


def mapping_of(fmt: WeightFormat | ActivationFormat) -> MappingType:
    return MappingType.SYMMETRIC if fmt.symmetric else MappingType.ASYMMETRIC


def block_of(weight: Tensor, fmt: WeightFormat) -> tuple[int, int]:
    if fmt.granularity == "per_tensor":
        return tuple(weight.shape)  # type: ignore[return-value]
    return 1, fmt.group_size or weight.shape[-1]


def primitives(weight: Tensor, fmt: WeightFormat) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Codes, scales, zero points and numbers that torchao's three functions make of a weight."""
    block, limits = block_of(weight, fmt), code_range(fmt.bits)
    scale, zero = choose_qparams_affine(
        weight,
        mapping_of(fmt),
        block,
        torch.int8,
        *limits,
        zero_point_dtype=torch.int8,
        keepdim=True,
    )
    codes = quantize_affine(weight, block, scale, zero, torch.int8, *limits)
    numbers = dequantize_affine(
        codes, block, scale, zero, torch.int8, *limits, output_dtype=weight.dtype
    )
    return codes, scale, zero, numbers


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_weight_codes_scales_and_values_are_torchaos(dtype: torch.dtype, bits: int) -> None:
    @settings(max_examples=15, deadline=None)
    @given(weight=rows(dtype))
    def check(weight: Tensor) -> None:
        for shared, symmetric in product(SHARED, (True, False)):
            fmt = WeightFormat(bits=bits, symmetric=symmetric, **shared)
            codes, scale, zero, numbers = primitives(weight, fmt)
            ours = round_to_nearest(weight, fmt)
            assert_same_bits(ours.codes_OI, codes)
            assert_same_bits(ours.scale_OG, scale)
            if symmetric:
                assert not zero.any()
                assert ours.zero_OG is None
            else:
                assert ours.zero_OG is not None
                assert_same_bits(ours.zero_OG, zero)
            assert_same_bits(dequantize(ours), numbers)
            assert_same_bits(fake_quantize_weight(weight, fmt), numbers)

    check()


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("bits", BITS)
def test_weight_tensors_are_torchaos(bits: int, symmetric: bool) -> None:
    weight = torch.stack([ROWS[kind](5, torch.float32) for kind in sorted(ROWS)])
    for shared in SHARED[1:]:
        fmt = WeightFormat(bits=bits, symmetric=symmetric, **shared)
        theirs = IntxUnpackedToInt8Tensor.from_hp(
            weight,
            block_of(weight, fmt),
            getattr(torch, f"int{bits}"),
            mapping_type=mapping_of(fmt),
        )
        ours = round_to_nearest(weight, fmt)
        assert_same_bits(ours.codes_OI, theirs.qdata)
        assert_same_bits(ours.scale_OG, theirs.scale)
        assert_same_bits(fake_quantize_weight(weight, fmt), theirs.dequantize())


@pytest.mark.parametrize("granularity", [PerRow(), PerTensor()], ids=["per channel", "per tensor"])
def test_8_bit_tensors_are_torchaos(granularity: PerRow | PerTensor) -> None:
    # torchao does not let these scales become smaller than float32's epsilon.
    kinds = set(ROWS) - {"denormal", "almost denormal", "zero", "negative zero"}
    weight = torch.stack([ROWS[kind](5, torch.float32) for kind in sorted(kinds)])
    whole = isinstance(granularity, PerTensor)
    fmt = WeightFormat(bits=8, granularity="per_tensor" if whole else "per_channel")
    theirs = Int8Tensor.from_hp(weight, granularity)
    ours = round_to_nearest(weight, fmt)
    assert_same_bits(ours.codes_OI, theirs.qdata)
    assert_same_bits(ours.scale_OG, theirs.scale)
    assert_same_bits(fake_quantize_weight(weight, fmt), theirs.dequantize())


@pytest.mark.parametrize("scale_dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_codes_on_any_given_grid_are_torchaos(
    dtype: torch.dtype, bits: int, scale_dtype: Any
) -> None:
    @settings(max_examples=5, deadline=None)
    @given(weight=rows(dtype), factor=st.sampled_from([0.25, 0.9, 1.0, 1.7, 8.0]))
    def check(weight: Tensor, factor: float) -> None:
        for shared, symmetric in product(SHARED, (True, False)):
            fmt = WeightFormat(bits=bits, symmetric=symmetric, scale_dtype=scale_dtype, **shared)
            chosen = choose_grid(weight, fmt)
            scale = (chosen.scale * factor).clamp(min=torch.finfo(dtype).smallest_normal)
            zero = torch.zeros_like(scale) if chosen.zero is None else chosen.zero
            block, limits = block_of(weight, fmt), code_range(bits)
            theirs = quantize_affine(weight, block, scale, zero.to(torch.int8), torch.int8, *limits)
            assert_same_bits(quantize(weight, Grid(scale, chosen.zero), fmt), theirs)

    check()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_tokens_are_rounded_as_torchao_rounds_them(dtype: torch.dtype) -> None:
    @settings(max_examples=200, deadline=None)
    @given(tokens=rows(dtype))
    def check(tokens: Tensor) -> None:
        for batch in (tokens, torch.stack([tokens, tokens.flip(0)])):
            theirs = _apply_int8_act_asym_per_token_quant_dequant(batch)
            assert_same_bits(fake_quantize_input(batch, ActivationFormat()), theirs)

    check()


OF_INT8_TENSOR = [
    ActivationFormat(symmetric=True),
    *(
        ActivationFormat(granularity="per_tensor", ranges=ranges, symmetric=symmetric)
        for ranges in ("dynamic", "static")
        for symmetric in (True, False)
    ),
]


@pytest.mark.parametrize(
    "fmt",
    OF_INT8_TENSOR,
    ids=lambda fmt: f"{fmt.granularity}-{fmt.ranges}-{'' if fmt.symmetric else 'a'}symmetric",
)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_inputs_of_8_bit_layers_are_rounded_as_torchao_rounds_them(
    dtype: torch.dtype, fmt: ActivationFormat
) -> None:
    @settings(max_examples=100, deadline=None)
    @given(tokens=rows(dtype), share=st.sampled_from([0.5, 1.0, 1.5]))
    def check(tokens: Tensor, share: float) -> None:
        for batch in (tokens, torch.stack([tokens, tokens.flip(0)])):
            grid = dynamic_grid(batch, fmt)
            given_grid: dict[str, Tensor | None] = {}
            if fmt.ranges == "static":
                low, high = (end.view((1,) * batch.dim()) * share for end in batch.aminmax())
                grid = input_grid(low, high, fmt)
                zero = None if grid.zero is None else grid.zero.to(torch.int8)
                given_grid = {"scale": grid.scale, "zero_point": zero}
            per_token = fmt.granularity == "per_token"
            theirs = _choose_quant_func_and_quantize_tensor(
                batch,
                QuantizeTensorToInt8Kwargs(PerRow() if per_token else PerTensor(), mapping_of(fmt)),
                **given_grid,
            )
            assert_same_bits(grid.scale, theirs.scale)
            if grid.zero is not None:
                assert torch.equal(grid.zero.to(torch.int8), theirs.zero_point)
            assert torch.equal(input_codes(batch, grid).to(torch.int8), theirs.qdata)
            assert_same_bits(fake_quantize_input(batch, fmt, grid), theirs.dequantize())

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
    assert torch.equal(F.linear(tokens, identity), fake_quantize_input(tokens, ActivationFormat()))
