from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from quantship.quant import numerics
from quantship.quant.differences import differing
from quantship.quant.numerics import (
    Codes,
    Grid,
    choose_grid,
    code_range,
    dequantize,
    dynamic_grid,
    fake_quantize_input,
    fake_quantize_on,
    fake_quantize_weight,
    grid_of_range,
    grouped,
    input_codes,
    input_grid,
    learned_gradients,
    quantize,
    round_to,
    round_to_nearest,
)
from quantship.quant.scheme import ActivationFormat, WeightFormat

pytestmark = pytest.mark.usefixtures("one_thread")

WIDTH = 24
DTYPES = (torch.float32, torch.bfloat16, torch.float16)
AS_INTEGERS = {torch.float32: torch.int32, torch.bfloat16: torch.int16, torch.float16: torch.int16}
INPUTS = [
    ActivationFormat(symmetric=symmetric, **how)  # type: ignore[arg-type]
    for how in (
        {},
        {"granularity": "per_tensor"},
        {"granularity": "per_tensor", "ranges": "static"},
    )
    for symmetric in (False, True)
]
inputs = pytest.mark.parametrize(
    "fmt",
    INPUTS,
    ids=lambda fmt: f"{fmt.granularity}-{fmt.ranges}-{'' if fmt.symmetric else 'a'}symmetric",
)


@st.composite
def formats(draw: st.DrawFn, /, **fixed: Any) -> WeightFormat:
    """Any weight format for matrices of 24 columns."""
    granularity = draw(st.sampled_from(["per_tensor", "per_channel", "per_group"]))
    options: dict[str, Any] = {
        "bits": draw(st.integers(2, 8)),
        "granularity": granularity,
        "group_size": draw(st.sampled_from([1, 4, 8, 24])) if granularity == "per_group" else None,
        "symmetric": draw(st.booleans()),
        "scale_dtype": draw(st.sampled_from(["float32", "bfloat16"])),
    }
    return WeightFormat(**(options | fixed))


@st.composite
def matrices(draw: st.DrawFn, dtypes: tuple[torch.dtype, ...] = (torch.float32,)) -> Tensor:
    """A few rows of a size each, with zeros of both signs among them, lopsided or not."""
    dtype = draw(st.sampled_from(dtypes))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    rows = []
    for _ in range(draw(st.integers(1, 3))):
        row = torch.randn(WIDTH, generator=generator)
        row = row + draw(st.sampled_from([0.0, 0.0, -3.0, 5.0]))
        least, most = (-9, 13) if dtype == torch.float16 else (-120, 100)
        row = row * 2.0 ** draw(st.integers(least, most))
        row[draw(st.integers(0, WIDTH - 1))] = draw(st.sampled_from([0.0, -0.0, 1e-30, 7.5]))
        row[draw(st.integers(0, WIDTH - 1))] *= draw(st.sampled_from([1.0, 0.0, -1.0, 3.0]))
        rows.append(row if draw(st.integers(0, 9)) else torch.zeros(WIDTH))
    largest = torch.finfo(dtype).max / 4  # so that no range is infinite
    return torch.stack(rows).clamp(-largest, largest).to(dtype)


@st.composite
def weights_and_grids(
    draw: st.DrawFn, /, dtypes: tuple[torch.dtype, ...] = DTYPES, **fixed: Any
) -> tuple[Tensor, Grid, WeightFormat]:
    """A weight, a grid that need not fit it, and the format of both."""
    weight, fmt = draw(matrices(dtypes)), draw(formats(**fixed))
    chosen = choose_grid(weight, fmt)
    factor = draw(st.sampled_from([0.25, 0.9, 1.0, 1.7]))
    smallest = torch.finfo(weight.dtype).smallest_normal
    scale = (chosen.scale * factor).clamp(min=smallest)
    if fmt.scale_dtype == "bfloat16":
        scale = scale.bfloat16().to(scale.dtype)
    if fmt.symmetric:
        return weight, Grid(scale), fmt
    low, high = code_range(fmt.bits)
    zero = torch.full_like(scale, draw(st.integers(low, high)))
    return weight, Grid(scale, zero), fmt


def assert_same_bits(first: Tensor, second: Tensor) -> None:
    assert (first.dtype, first.shape) == (second.dtype, second.shape)
    view = AS_INTEGERS[first.dtype]
    assert torch.equal(first.contiguous().view(view), second.contiguous().view(view))


def steps(codes: Codes) -> Tensor:
    """Scale of each number, of the weight's shape."""
    repeats_O, repeats_I = (
        whole // part
        for whole, part in zip(codes.codes_OI.shape, codes.scale_OG.shape, strict=True)
    )
    scale_OI = codes.scale_OG.repeat_interleave(repeats_O, 0).repeat_interleave(repeats_I, 1)
    return scale_OI.double()


@pytest.mark.parametrize(("bits", "limits"), [(2, (-2, 1)), (4, (-8, 7)), (8, (-128, 127))])
def test_code_range_is_that_of_signed_integers(bits: int, limits: tuple[int, int]) -> None:
    assert code_range(bits) == limits


@settings(deadline=None, max_examples=400)
@given(weight=matrices(DTYPES), fmt=formats())
def test_fake_quantized_is_dequantized_to_the_bit(weight: Tensor, fmt: WeightFormat) -> None:
    codes = round_to_nearest(weight, fmt)
    assert_same_bits(fake_quantize_weight(weight, fmt), dequantize(codes, weight.dtype))


@settings(deadline=None, max_examples=400)
@given(case=weights_and_grids())
def test_fake_quantized_on_a_grid_is_dequantized_to_the_bit(
    case: tuple[Tensor, Grid, WeightFormat],
) -> None:
    weight, grid, fmt = case
    codes = round_to(weight, grid, fmt)
    assert_same_bits(fake_quantize_on(weight, grid, fmt), dequantize(codes, weight.dtype))
    low, high = code_range(fmt.bits)
    assert low <= int(codes.codes_OI.min())
    assert int(codes.codes_OI.max()) <= high


@settings(deadline=None)
@given(weight=matrices(DTYPES), fmt=formats())
def test_its_own_range_is_a_grid_like_any_other(weight: Tensor, fmt: WeightFormat) -> None:
    on_its_own = fake_quantize_on(weight, choose_grid(weight, fmt), fmt)
    assert_same_bits(fake_quantize_weight(weight, fmt), on_its_own)


@settings(deadline=None)
@given(weight=matrices(DTYPES), fmt=formats())
def test_codes_are_small_integers_of_the_weights_shape(weight: Tensor, fmt: WeightFormat) -> None:
    codes = round_to_nearest(weight, fmt)
    low, high = code_range(fmt.bits)
    assert codes.codes_OI.dtype == torch.int8
    assert codes.codes_OI.shape == weight.shape
    assert low <= int(codes.codes_OI.min())
    assert int(codes.codes_OI.max()) <= high
    groups = {"per_tensor": 1, "per_channel": 1}.get(
        fmt.granularity, WIDTH // (fmt.group_size or 1)
    )
    rows = 1 if fmt.granularity == "per_tensor" else len(weight)
    assert codes.scale_OG.shape == (rows, groups)
    assert (codes.scale_OG > 0).all()
    if fmt.symmetric:
        assert codes.zero_OG is None
    else:
        assert codes.zero_OG is not None
        assert codes.zero_OG.shape == codes.scale_OG.shape
        assert codes.zero_OG.dtype == torch.int8


@settings(deadline=None)
@given(weight=matrices(DTYPES), fmt=formats())
def test_scales_are_of_the_dtype_that_the_file_holds(weight: Tensor, fmt: WeightFormat) -> None:
    scale = choose_grid(weight, fmt).scale
    if fmt.scale_dtype == "float32":
        assert scale.dtype == weight.dtype
    else:
        assert scale.dtype == torch.promote_types(weight.dtype, torch.bfloat16)
        assert torch.equal(scale.bfloat16().to(scale.dtype), scale)


@settings(deadline=None)
@given(weight=matrices(), fmt=formats())
def test_nothing_moves_far(weight: Tensor, fmt: WeightFormat) -> None:
    codes = round_to_nearest(weight, fmt)
    error = (dequantize(codes).double() - weight.double()).abs()
    # Half a step by rounding; another half where rounding the zero point clips an end; and where
    # the scale was rounded down to 8 bits, the ends are up to one step out of reach.
    share = 0.5 + 0.5 * (not fmt.symmetric) + 1.0 * (fmt.scale_dtype == "bfloat16")
    assert (error <= steps(codes) * share * (1 + 1e-4)).all()


@settings(deadline=None)
@given(weight=matrices(), fmt=formats())
def test_zero_stays_zero(weight: Tensor, fmt: WeightFormat) -> None:
    weight[:, ::5] = 0.0
    assert not fake_quantize_weight(weight, fmt)[:, ::5].any()


@settings(deadline=None)
@given(case=weights_and_grids(dtypes=(torch.float32,)))
def test_quantizing_again_on_the_same_grid_changes_no_code(
    case: tuple[Tensor, Grid, WeightFormat],
) -> None:
    weight, grid, fmt = case
    codes = round_to(weight, grid, fmt)
    assert torch.equal(quantize(dequantize(codes), grid, fmt), codes.codes_OI)


@settings(deadline=None)
@given(weight=matrices(), fmt=formats())
def test_rows_do_not_know_of_each_other(weight: Tensor, fmt: WeightFormat) -> None:
    together = fake_quantize_weight(weight, fmt)
    alone = torch.cat([fake_quantize_weight(row[None], fmt) for row in weight])
    if fmt.granularity == "per_tensor":
        assert len(choose_grid(weight, fmt).scale) == 1
    else:
        assert_same_bits(together, alone)


@settings(deadline=None)
@given(weight=matrices(), fmt=formats(granularity="per_channel", group_size=None))
def test_one_group_a_row_is_no_groups(weight: Tensor, fmt: WeightFormat) -> None:
    as_group = fmt.model_copy(update={"granularity": "per_group", "group_size": WIDTH})
    one, other = round_to_nearest(weight, fmt), round_to_nearest(weight, as_group)
    assert not differing({"": one}, {"": other})


@settings(deadline=None)
@given(weight=matrices(), fmt=formats(granularity="per_tensor", group_size=None))
def test_a_whole_matrix_is_one_long_row(weight: Tensor, fmt: WeightFormat) -> None:
    long = fmt.model_copy(update={"granularity": "per_channel"})
    expected = fake_quantize_weight(weight.view(1, -1), long).view(weight.shape)
    assert_same_bits(fake_quantize_weight(weight, fmt), expected)


@settings(deadline=None)
@given(weight=matrices(DTYPES), fmt=formats())
def test_a_grid_is_that_of_least_and_greatest_weight(weight: Tensor, fmt: WeightFormat) -> None:
    groups = grouped(weight, fmt)
    grid = grid_of_range(groups.amin(-1), groups.amax(-1), fmt)
    assert not differing({"": round_to_nearest(weight, fmt)}, {"": round_to(weight, grid, fmt)})


@pytest.mark.parametrize("symmetric", [True, False])
def test_an_all_zero_row_stays_zero(symmetric: bool) -> None:
    weight = torch.zeros(2, 8)
    codes = round_to_nearest(weight, WeightFormat(bits=4, symmetric=symmetric))
    assert not dequantize(codes).any()
    assert all(not fake_quantize_input(weight, fmt).any() for fmt in INPUTS[:4])


def test_an_asymmetric_grid_spends_no_code_on_the_side_without_weights() -> None:
    weight = torch.linspace(0, 1, 16)[None]
    asymmetric = round_to_nearest(weight, WeightFormat(bits=4, symmetric=False)).codes_OI
    assert asymmetric.unique().tolist() == list(range(-8, 8))
    symmetric = round_to_nearest(weight, WeightFormat(bits=4)).codes_OI
    assert symmetric.unique().tolist() == list(range(8))


@pytest.mark.parametrize("function", [choose_grid, round_to_nearest, fake_quantize_weight])
def test_groups_that_do_not_divide_are_refused_with_both_numbers(function: Any) -> None:
    with pytest.raises(ValueError, match=r"32 does not divide 48"):
        function(torch.ones(2, 48), WeightFormat(bits=4, group_size=32))


def test_arguments_are_left_as_they_were() -> None:
    weight = torch.randn(3, 16, generator=torch.Generator().manual_seed(0))
    fmt = WeightFormat(bits=4, group_size=8, symmetric=False)
    codes = round_to_nearest(weight, fmt)
    grid = Grid(codes.scale_OG, codes.zero_OG.float() if codes.zero_OG is not None else None)
    before = [part.clone() for part in (weight, *codes, *grid) if part is not None]
    fake_quantize_weight(weight, fmt)
    fake_quantize_on(weight, grid, fmt)
    learned_gradients(weight, weight, grid, fmt)
    dequantize(codes)
    for activation in INPUTS:
        fake_quantize_input(weight, activation, dynamic_grid(weight, activation))
    after = [part for part in (weight, *codes, *grid) if part is not None]
    assert all(torch.equal(one, other) for one, other in zip(before, after, strict=True))


def test_differences_are_told_apart_from_other_ways_to_say_the_same() -> None:
    codes, scale = torch.tensor([[1, -2]], dtype=torch.int8), torch.tensor([[0.5]])
    one = Codes(codes, scale)
    no_zero = Codes(codes, scale.bfloat16(), torch.zeros(1, 1, dtype=torch.int8))
    assert differing({"a": one, "b": one}, {"a": no_zero, "b": one}) == []
    assert differing({"a": one}, {"b": one}) == ["a", "b"]
    for other in (
        Codes(codes + 1, scale),
        Codes(codes, scale * 2),
        Codes(codes, scale, torch.ones(1, 1, dtype=torch.int8)),
    ):
        assert differing({"a": one, "b": one}, {"a": other, "b": one}) == ["a"]


# Inputs


@inputs
@settings(deadline=None)
@given(tokens=matrices())
def test_inputs_move_by_one_step_at_most_and_zero_not_at_all(
    fmt: ActivationFormat, tokens: Tensor
) -> None:
    tokens[:, 0] = 0.0
    grid = dynamic_grid(tokens, fmt)
    quantized = fake_quantize_input(tokens, fmt, grid)
    # Half a step by rounding, and half a step where rounding the zero point clips an end.
    assert ((quantized - tokens).abs().double() <= grid.scale.double() * (1 + 1e-5) + 1e-37).all()
    assert not quantized[:, 0].any()
    assert all(len(row.unique()) <= 256 for row in quantized)


@inputs
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@settings(deadline=None, max_examples=50)
@given(data=st.data())
def test_a_fake_quantized_input_is_its_codes_times_the_scale(
    fmt: ActivationFormat, dtype: torch.dtype, data: st.DataObject
) -> None:
    tokens = data.draw(matrices((dtype,)))
    grid = dynamic_grid(tokens, fmt)
    codes = input_codes(tokens, grid)
    assert torch.equal(codes, codes.round())
    assert int(codes.min()) >= -128
    assert int(codes.max()) <= 127
    numbers = codes if grid.zero is None else codes - grid.zero
    seen = fake_quantize_input(tokens, fmt, grid)
    assert torch.equal((numbers * grid.scale).to(dtype), seen)
    if dtype == torch.float32:
        assert torch.equal(input_codes(seen, grid), codes)


@settings(deadline=None)
@given(tokens=matrices(), symmetric=st.booleans())
def test_tokens_do_not_know_of_each_other_in_any_shape(tokens: Tensor, symmetric: bool) -> None:
    fmt = ActivationFormat(symmetric=symmetric)
    alone = torch.cat([fake_quantize_input(row, fmt) for row in tokens])
    assert torch.equal(fake_quantize_input(tokens, fmt).flatten(), alone)
    assert torch.equal(fake_quantize_input(tokens[None, :, None], fmt).flatten(), alone)


@settings(deadline=None)
@given(tokens=matrices(), symmetric=st.booleans())
def test_one_scale_for_all_tokens_is_one_long_token(tokens: Tensor, symmetric: bool) -> None:
    fmt = ActivationFormat(granularity="per_tensor", symmetric=symmetric)
    long = fake_quantize_input(tokens.view(1, 1, -1), fmt)
    assert torch.equal(fake_quantize_input(tokens[None], fmt).flatten(), long.flatten())
    assert dynamic_grid(tokens[None], fmt).scale.shape == (1, 1, 1)


@pytest.mark.parametrize("symmetric", [True, False])
def test_a_static_range_clips_what_lies_outside(symmetric: bool) -> None:
    fmt = ActivationFormat(granularity="per_tensor", ranges="static", symmetric=symmetric)
    grid = input_grid(torch.tensor([[-1.0]]), torch.tensor([[3.0]]), fmt)
    tokens = torch.tensor([[-100.0, -1.0, 0.0, 2.9, 3.0, 100.0]])
    seen = fake_quantize_input(tokens, fmt, grid)[0]
    reach = float(grid.scale)
    assert seen[0] == pytest.approx(-3 if symmetric else -1, abs=reach)
    assert seen[2] == 0
    assert seen[3] == pytest.approx(2.9, abs=reach)
    assert seen[4] == seen[5] == pytest.approx(3, abs=reach)


@inputs
def test_a_range_always_holds_zero(fmt: ActivationFormat) -> None:
    for low, high in ((2.0, 3.0), (-3.0, -2.0), (0.0, 0.0)):
        grid = input_grid(torch.tensor([[low]]), torch.tensor([[high]]), fmt)
        zeros = torch.zeros(1, 4)
        assert not fake_quantize_input(zeros, fmt, grid).any()


# Gradients


@settings(deadline=None, max_examples=50)
@given(weight=matrices(DTYPES), fmt=formats(), seed=st.integers(0, 2**31))
def test_a_weights_gradient_passes_straight_through(
    weight: Tensor, fmt: WeightFormat, seed: int
) -> None:
    leaf = weight.clone().requires_grad_()
    incoming = torch.randn(weight.shape, generator=torch.Generator().manual_seed(seed))
    incoming = incoming.to(weight.dtype)
    (arrived,) = torch.autograd.grad(fake_quantize_weight(leaf, fmt), leaf, incoming)
    assert_same_bits(arrived, incoming)


@pytest.mark.parametrize("fmt", INPUTS[:4], ids=repr)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_dynamic_inputs_gradient_passes_straight_through(
    dtype: torch.dtype, fmt: ActivationFormat
) -> None:
    generator = torch.Generator().manual_seed(0)
    leaf, incoming = (torch.randn(2, 3, 8, generator=generator).to(dtype) for _ in range(2))
    leaf.requires_grad_()
    (arrived,) = torch.autograd.grad(fake_quantize_input(leaf, fmt), leaf, incoming)
    assert_same_bits(arrived, incoming)


def straight(exact: Tensor, used: Tensor) -> Tensor:
    """``used``, with the gradient of ``exact``."""
    return used.detach() + (exact - exact.detach())


def reference(numbers: Tensor, scale: Tensor, zero: Tensor | None, bits: int) -> Tensor:
    """LSQ and LSQ+ written out in differentiable operations: (..., S) with scales (..., 1)."""
    low, high = code_range(bits)
    step = 1 / math.sqrt(numbers.shape[-1] * high)
    scale = straight(scale * step, scale)
    zero = torch.zeros_like(scale) if zero is None else straight(zero * step, zero)
    position = numbers * (1 / scale)  # rounds as numerics does: not as dividing
    codes = (straight(position, position.round()) + zero).clamp(low, high)
    return (codes - zero) * scale


@settings(deadline=None, max_examples=100)
@given(
    fmt=formats(scale_dtype="float32"),
    seed=st.integers(0, 2**31),
    factor=st.sampled_from([0.2, 0.6, 1.0, 2.3]),
)
def test_learned_gradients_are_those_of_plain_autograd(
    fmt: WeightFormat, seed: int, factor: float
) -> None:
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(4, WIDTH, generator=generator, dtype=torch.float64)
    incoming = torch.randn(4, WIDTH, generator=generator, dtype=torch.float64)
    scale, zero = choose_grid(weight, fmt)
    leaves = [part.clone().requires_grad_() for part in (weight, scale * factor)]
    if zero is not None:
        leaves.append(zero.clone().requires_grad_())
    numbers, scale, *zeros = leaves
    ours = fake_quantize_on(numbers, Grid(scale, *zeros), fmt)
    groups, last = grouped(numbers, fmt), [part.unsqueeze(-1) for part in (scale, *zeros)]
    theirs = reference(groups, last[0], last[1] if zeros else None, fmt.bits).view(weight.shape)
    torch.testing.assert_close(ours, theirs)
    expected = torch.autograd.grad(theirs, leaves, incoming)
    arrived = torch.autograd.grad(ours, leaves, incoming)
    torch.testing.assert_close(arrived, expected)
    direct = learned_gradients(incoming, weight, Grid(scale.detach(), *zeros), fmt)
    torch.testing.assert_close(direct[: len(expected)], expected)
    assert arrived[1].any()
    if zeros and factor < 1:
        assert arrived[2].any()


@pytest.mark.parametrize("shape", [(5, 8), (2, 3, 8)])
@pytest.mark.parametrize("symmetric", [True, False])
def test_a_static_inputs_gradients_are_those_of_plain_autograd(
    symmetric: bool, shape: tuple[int, ...]
) -> None:
    fmt = ActivationFormat(granularity="per_tensor", ranges="static", symmetric=symmetric)
    generator = torch.Generator().manual_seed(0)
    tokens, incoming = (
        torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(2)
    )
    low, high = (torch.full((1,) * len(shape), end, dtype=torch.float64) for end in (-0.7, 1.1))
    scale, zero = input_grid(low, high, fmt)
    leaves = [tokens.requires_grad_(), scale.double().requires_grad_()]
    if zero is not None:
        leaves.append(zero.clone().requires_grad_())
    ours = fake_quantize_input(leaves[0], fmt, Grid(*leaves[1:]))
    flat = [leaf.view(1, -1) for leaf in leaves]
    theirs = reference(flat[0], flat[1], None if zero is None else flat[2], bits=8).view(shape)
    torch.testing.assert_close(ours, theirs)
    expected = torch.autograd.grad(theirs, leaves, incoming)
    arrived = torch.autograd.grad(ours, leaves, incoming)
    torch.testing.assert_close(arrived, expected)
    assert all(part.any() for part in arrived)
    outside = (tokens < -0.8) | (tokens > 1.2)
    if not symmetric:
        assert not arrived[0][outside].any()
    inside = (tokens > -0.6) & (tokens < 1.0)
    assert torch.equal(arrived[0][inside], incoming[inside])


def test_moving_a_scale_against_its_gradient_brings_numbers_nearer() -> None:
    weight = torch.randn(1, 256, generator=torch.Generator().manual_seed(0))
    fmt = WeightFormat(bits=3)
    scale = choose_grid(weight, fmt).scale.requires_grad_()
    optimizer = torch.optim.SGD([scale], lr=1e-2)
    errors = []
    for _ in range(50):
        error = (fake_quantize_on(weight, Grid(scale), fmt) - weight).square().sum()
        errors.append(error.item())
        optimizer.zero_grad()
        error.backward()
        optimizer.step()
    assert min(errors[-5:]) < 0.8 * errors[0]


@pytest.mark.parametrize("symmetric", [True, False])
def test_a_large_weight_is_rounded_block_by_block_to_the_same_codes(symmetric: bool) -> None:
    fmt = WeightFormat(bits=4, group_size=32, symmetric=symmetric)
    weight_OI = torch.randn(3 * numerics.CACHED_NUMBERS // 64 + 5, 64)
    whole = numerics.round_to(weight_OI, numerics.choose_grid(weight_OI, fmt), fmt)
    assert not differing({"w": numerics.round_to_nearest(weight_OI, fmt)}, {"w": whole})
