"""Quantize, dequantize, fake-quantize: pure functions, and the only place with this arithmetic.

They repeat torchao's affine primitives operation for operation (``choose_qparams_affine``,
``quantize_affine``, ``dequantize_affine`` of torchao 0.18), so that what was trained here is to the
bit what a torchao checkpoint computes; a contract test holds the two together. Shapes: O out
features, I in features, G groups of input features, S features in a group, T tokens (any leading
shape). Scales of a whole matrix have the shape (1, 1).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from quantship.quant.scheme import ActivationFormat, WeightFormat

INT8_SMALLEST_SCALE = torch.finfo(torch.float32).eps
"""Least scale of an input in torchao's ``Int8Tensor``, in any dtype."""
CACHED_NUMBERS = 1 << 20
"""Numbers of a weight that are rounded together, so that they stay in a processor's cache."""


class Grid(NamedTuple):
    """The numbers that codes can stand for.

    Args:
        scale: Distance of neighbours: (O, G) for a weight, in the dtype of its scales.
        zero: Code that stands for zero, of the same shape: whole numbers, or None for 0.
    """

    scale: Tensor
    zero: Tensor | None = None


class Codes(NamedTuple):
    """An integer matrix and the grid that gives its codes their size.

    Args:
        codes_OI: int8, within the range of the format's bits.
        scale_OG: Scales; (1, 1) for the whole matrix.
        zero_OG: Zero points in int8, or None where all are 0.
    """

    codes_OI: Tensor
    scale_OG: Tensor
    zero_OG: Tensor | None = None


def code_range(bits: int) -> tuple[int, int]:
    """Smallest and largest signed code of that many bits."""
    return -(1 << (bits - 1)), (1 << (bits - 1)) - 1


def choose_grid(weight_OI: Tensor, fmt: WeightFormat) -> Grid:
    """The grid whose range is from the least to the greatest weight.

    Raises:
        ValueError: The group size does not divide the in features.
    """
    grouped_OGS = grouped(weight_OI, fmt)
    # Two reductions without a temporary: on a CPU abs() and aminmax are slower.
    return grid_of_range(grouped_OGS.amin(dim=-1), grouped_OGS.amax(dim=-1), fmt)


def grid_of_range(lowest_OG: Tensor, highest_OG: Tensor, fmt: WeightFormat) -> Grid:
    """The grid of a range of weights; a symmetric one reaches as far below zero as above."""
    low, high = code_range(fmt.bits)
    smallest = torch.finfo(lowest_OG.dtype).smallest_normal
    if fmt.symmetric:
        reach_OG = torch.maximum(highest_OG, -lowest_OG)
        return Grid(_stored((reach_OG / ((high - low) / 2)).clamp(min=smallest), fmt))
    lowest_OG, highest_OG = lowest_OG.clamp(max=0), highest_OG.clamp(min=0)
    scale_OG = ((highest_OG - lowest_OG) / float(high - low)).clamp(min=smallest)
    scale_OG = _stored(scale_OG, fmt)
    zero_OG = (low - torch.round(lowest_OG / scale_OG)).clamp(low, high)
    return Grid(scale_OG, zero_OG.to(scale_OG.dtype))


def grid_to_end(number_OG: Tensor, code: int, fmt: WeightFormat) -> Grid:
    """The symmetric grid on which a code stands for a number; the scale has the sign it takes."""
    scale_OG = number_OG / code
    smallest = torch.finfo(scale_OG.dtype).smallest_normal
    return Grid(_stored(torch.where(scale_OG.abs() < smallest, smallest, scale_OG), fmt))


def quantize(weight_OI: Tensor, grid: Grid, fmt: WeightFormat) -> Tensor:
    """Nearest codes of a weight on a given grid: int8 of shape (O, I)."""
    if fmt.granularity == "per_tensor" or weight_OI.numel() <= CACHED_NUMBERS:
        return _rounded(weight_OI, grid, fmt).to(torch.int8).view(weight_OI.shape)
    codes_OI = torch.empty(weight_OI.shape, dtype=torch.int8, device=weight_OI.device)
    for rows in cached_rows(*weight_OI.shape):
        part = _rounded(weight_OI[rows], rows_of(grid, rows), fmt)
        codes_OI[rows] = part.view(part.shape[0], -1)
    return codes_OI


def cached_rows(num_rows: int, width: int) -> Iterator[slice]:
    """Slices of a matrix's rows that stay in the cache: they are rounded three times as fast."""
    size = max(1, CACHED_NUMBERS // width)
    return (slice(start, start + size) for start in range(0, num_rows, size))


def rows_of(grid: Grid, rows: slice) -> Grid:
    """The grid of some rows; all of it where the matrix shares one scale."""
    if grid.scale.shape[0] == 1:
        return grid
    return Grid(grid.scale[rows], None if grid.zero is None else grid.zero[rows])


def dequantize(codes: Codes, dtype: torch.dtype | None = None) -> Tensor:
    """The numbers that codes stand for: (O, I), in ``dtype`` or else in that of the scales."""
    scale_OG, zero_OG = codes.scale_OG, codes.zero_OG
    grouped_OGS = codes.codes_OI.view(*scale_OG.shape, -1).to(scale_OG.dtype)
    if zero_OG is not None:
        grouped_OGS.sub_(zero_OG.to(scale_OG.dtype).unsqueeze(-1))
    numbers_OI = grouped_OGS.mul_(scale_OG.unsqueeze(-1)).view(codes.codes_OI.shape)
    return numbers_OI if dtype is None else numbers_OI.to(dtype)


def round_to(weight_OI: Tensor, grid: Grid, fmt: WeightFormat) -> Codes:
    """Codes of a weight on a given grid."""
    zero_OG = None if grid.zero is None else grid.zero.to(torch.int8)
    return Codes(quantize(weight_OI, grid, fmt), grid.scale, zero_OG)


def round_to_nearest(weight_OI: Tensor, fmt: WeightFormat) -> Codes:
    """Codes of a weight on the grid of its own range."""
    if fmt.granularity == "per_tensor" or weight_OI.numel() <= CACHED_NUMBERS:
        return round_to(weight_OI, choose_grid(weight_OI, fmt), fmt)
    # Scales never cross rows.
    blocks = [weight_OI[rows] for rows in cached_rows(*weight_OI.shape)]
    parts = [round_to(block, choose_grid(block, fmt), fmt) for block in blocks]
    codes_OI = torch.cat([part.codes_OI for part in parts])
    scale_OG = torch.cat([part.scale_OG for part in parts])
    zeros = [part.zero_OG for part in parts if part.zero_OG is not None]
    return Codes(codes_OI, scale_OG, torch.cat(zeros) if zeros else None)


def fake_quantize_weight(weight_OI: Tensor, fmt: WeightFormat) -> Tensor:
    """``dequantize(round_to_nearest(weight))`` to the bit, with a gradient.

    The gradient passes straight through: the weight's own range clips nothing.
    """
    return _StraightThrough.apply(weight_OI, fmt)  # type: ignore[no-any-return,no-untyped-call]


def fake_quantize_on(weight_OI: Tensor, grid: Grid, fmt: WeightFormat) -> Tensor:
    """``dequantize(round_to(weight, grid))`` to the bit, with gradients for weight and grid.

    Source:
        Esser et al., Learned Step Size Quantization, 2020, section 2; for the zero point Bhalgat
        et al., LSQ+, 2020, section 3.
    """
    numbers: Tensor = _Learned.apply(weight_OI, *grid, fmt)  # type: ignore[no-untyped-call]
    return numbers


def learned_gradients(
    grad_OI: Tensor, weight_OI: Tensor, grid: Grid, fmt: WeightFormat
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Gradients of weight, scale and zero point, from the gradient of the fake-quantized weight."""
    grad_OGS, grad_scale_OG, grad_zero_OG = _learned_gradients(
        grouped(grad_OI, fmt), grouped(weight_OI, fmt), grid, fmt.bits
    )
    return grad_OGS.view(grad_OI.shape), grad_scale_OG, grad_zero_OG


def fake_quantize_input(
    input_TI: Tensor, fmt: ActivationFormat, grid: Grid | None = None
) -> Tensor:
    """Quantize the input of a layer to 8 bits and back.

    The gradient passes straight through; of a static range, only what lies inside it, and the
    grid has one as well.

    Args:
        input_TI: Floats of any leading shape.
        fmt: How.
        grid: The grid to use: of a static range, or ``dynamic_grid``'s, which is the default.
    """
    grid = dynamic_grid(input_TI, fmt) if grid is None else grid
    rounded = _DynamicInput if fmt.ranges == "dynamic" else _StaticInput
    return rounded.apply(input_TI, *grid)  # type: ignore[no-any-return,no-untyped-call]


@torch.no_grad()
def dynamic_grid(input_TI: Tensor, fmt: ActivationFormat) -> Grid:
    """The grid of the numbers at hand: for each token (T, 1), or for all of them (1, ..., 1)."""
    over = -1 if fmt.granularity == "per_token" else tuple(range(input_TI.dim()))
    lowest, highest = input_TI.amin(over, keepdim=True), input_TI.amax(over, keepdim=True)
    return input_grid(lowest, highest, fmt)


def input_grid(lowest: Tensor, highest: Tensor, fmt: ActivationFormat) -> Grid:
    """The grid of a range of inputs, which always holds zero, so that padding stays exact."""
    low, high = code_range(fmt.bits)
    lowest, highest = lowest.clamp(max=0), highest.clamp(min=0)
    # torchao's two tensors differ: one keeps scales in the input's dtype, one in float32.
    plain = fmt.granularity == "per_token" and not fmt.symmetric
    smallest = torch.finfo(lowest.dtype).smallest_normal if plain else INT8_SMALLEST_SCALE
    kept = lowest.dtype if plain else torch.float32
    if fmt.symmetric:
        reach = torch.maximum(highest, -lowest)
        return Grid((reach / (float(high - low) / 2)).clamp(min=smallest).to(kept))
    scale = ((highest - lowest) / float(high - low)).clamp(min=smallest)
    zero = (low - torch.round(lowest / scale)).clamp(low, high)
    return Grid(scale.to(kept), zero)


def input_codes(input_TI: Tensor, grid: Grid) -> Tensor:
    """8-bit codes of a layer's input, still as floats."""
    codes_TI = (input_TI * (1.0 / grid.scale)).round_()
    if grid.zero is not None:
        codes_TI.add_(grid.zero)
    return codes_TI.clamp_(*code_range(8))


def grouped(weight_OI: Tensor, fmt: WeightFormat) -> Tensor:
    """A weight with the numbers that share a scale in the last of three dimensions.

    Raises:
        ValueError: The group size does not divide the in features.
    """
    num_out, num_in = weight_OI.shape
    if fmt.granularity == "per_tensor":
        return weight_OI.reshape(1, 1, num_out * num_in)
    group = fmt.group_size or num_in
    if num_in % group:
        raise ValueError(f"a group size of {group} does not divide {num_in} input features")
    return weight_OI.reshape(num_out, num_in // group, group)


def _stored(scale_OG: Tensor, fmt: WeightFormat) -> Tensor:
    """Scales as the file holds them, in a dtype that loses nothing of weight or scale."""
    if fmt.scale_dtype == "float32":
        return scale_OG
    kept = torch.promote_types(scale_OG.dtype, torch.bfloat16)
    return scale_OG.to(torch.bfloat16).to(kept)


def _rounded(weight_OI: Tensor, grid: Grid, fmt: WeightFormat) -> Tensor:
    """Nearest codes, still as floats of shape (O, G, S), in memory of their own."""
    low, high = code_range(fmt.bits)
    codes_OGS = (grouped(weight_OI, fmt) * (1.0 / grid.scale.unsqueeze(-1))).round_()
    if grid.zero is not None:
        codes_OGS.add_(grid.zero.unsqueeze(-1))
    return codes_OGS.clamp_(low, high)


def _fake_quantized(weight_OI: Tensor, grid: Grid, fmt: WeightFormat) -> Tensor:
    """``dequantize(round_to(weight, grid))`` to the bit, without the detour through int8."""
    codes_OGS = _rounded(weight_OI, grid, fmt)
    # Rounding leaves -0.0 where the integer code is 0, whose sign is plus: adding 0.0 mends it.
    codes_OGS.add_(0.0) if grid.zero is None else codes_OGS.sub_(grid.zero.unsqueeze(-1))
    return codes_OGS.mul_(grid.scale.unsqueeze(-1)).view(weight_OI.shape).to(weight_OI.dtype)


class _StraightThrough(torch.autograd.Function):
    @staticmethod
    def forward(ctx: object, weight_OI: Tensor, fmt: WeightFormat) -> Tensor:
        return _fake_quantized(weight_OI, choose_grid(weight_OI, fmt), fmt)

    @staticmethod
    def backward(ctx: object, grad_OI: Tensor) -> tuple[Tensor, None]:
        return grad_OI, None


class _Learned(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: torch.autograd.function.FunctionCtx,
        weight_OI: Tensor,
        scale_OG: Tensor,
        zero_OG: Tensor | None,
        fmt: WeightFormat,
    ) -> Tensor:
        ctx.save_for_backward(weight_OI, scale_OG, zero_OG)  # type: ignore[arg-type]
        ctx.fmt = fmt  # type: ignore[attr-defined]
        return _fake_quantized(weight_OI, Grid(scale_OG, zero_OG), fmt)

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, grad_OI: Tensor) -> tuple[object, ...]:
        weight_OI, scale_OG, zero_OG = ctx.saved_tensors  # type: ignore[attr-defined]
        fmt: WeightFormat = ctx.fmt  # type: ignore[attr-defined]
        return *learned_gradients(grad_OI, weight_OI, Grid(scale_OG, zero_OG), fmt), None


class _DynamicInput(torch.autograd.Function):
    @staticmethod
    def forward(ctx: object, input_TI: Tensor, scale: Tensor, zero: Tensor | None) -> Tensor:
        return _through_codes(input_TI, Grid(scale, zero))

    @staticmethod
    def backward(ctx: object, grad_TI: Tensor) -> tuple[Tensor, None, None]:
        return grad_TI, None, None


class _StaticInput(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: torch.autograd.function.FunctionCtx,
        input_TI: Tensor,
        scale: Tensor,
        zero: Tensor | None,
    ) -> Tensor:
        ctx.save_for_backward(input_TI, scale, zero)  # type: ignore[arg-type]
        return _through_codes(input_TI, Grid(scale, zero))

    @staticmethod
    def backward(
        ctx: torch.autograd.function.FunctionCtx, grad_TI: Tensor
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        input_TI, scale, zero = ctx.saved_tensors  # type: ignore[attr-defined]
        grid = Grid(scale.view(1, 1), None if zero is None else zero.view(1, 1))
        flat = (grad_TI.reshape(1, 1, -1), input_TI.reshape(1, 1, -1))
        grad_11N, grad_scale, grad_zero = _learned_gradients(*flat, grid, bits=8)
        grad_zero = None if grad_zero is None else grad_zero.view(scale.shape)
        return grad_11N.view(grad_TI.shape), grad_scale.view(scale.shape), grad_zero


def _learned_gradients(
    grad_OGS: Tensor, numbers_OGS: Tensor, grid: Grid, bits: int
) -> tuple[Tensor, Tensor, Tensor | None]:
    low, high = code_range(bits)
    scale_OG1 = grid.scale.unsqueeze(-1)
    zero_OG1 = torch.zeros_like(scale_OG1) if grid.zero is None else grid.zero.unsqueeze(-1)
    position_OGS = numbers_OGS * (1.0 / scale_OG1)
    codes_OGS = position_OGS.round().add_(zero_OG1)
    inside_OGS = (codes_OGS >= low) & (codes_OGS <= high)
    codes_OGS.clamp_(low, high).sub_(zero_OG1)
    # Inside the range the scale moves a number by its rounding error, outside by its code.
    slope_OGS = codes_OGS.sub_(position_OGS.mul_(inside_OGS))
    step = (slope_OGS.shape[-1] * high) ** -0.5  # keeps the scale's updates in proportion
    grad_scale_OG = (grad_OGS * slope_OGS).sum(dim=-1).mul_(step)
    grad_zero_OG = None
    if grid.zero is not None:
        clipped_OG = (grad_OGS * ~inside_OGS).sum(dim=-1)
        grad_zero_OG = clipped_OG.mul_(-grid.scale).mul_(step)
    return grad_OGS * inside_OGS, grad_scale_OG, grad_zero_OG


def _through_codes(input_TI: Tensor, grid: Grid) -> Tensor:
    codes_TI = input_codes(input_TI, grid)
    codes_TI.add_(0.0) if grid.zero is None else codes_TI.sub_(grid.zero)
    return codes_TI.mul_(grid.scale).to(input_TI.dtype)
