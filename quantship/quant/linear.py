"""Multiply an input by a weight, each through its grid, as a layer in training does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from quantship.quant import numerics
from quantship.quant.numerics import Codes, Grid
from quantship.quant.rounding import InputRounding, WeightRounding
from quantship.quant.scheme import LayerFormat, WeightFormat


class Rounds(Protocol):
    """A layer that says how its weight and its input are rounded."""

    format: LayerFormat
    rounding: WeightRounding
    input_rounding: InputRounding | None


def fake_linear(
    layer: Rounds,
    input: Tensor,
    weight_OI: Tensor,
    bias: Tensor | None,
    key: object,
) -> Tensor:
    """Multiply an input by a weight, each through its grid.

    Args:
        layer: Says how to round.
        input: Float, (T, I).
        weight_OI: Float; may be the result of other operations, as a merged adapter is.
        bias: Of the layer, or None.
        key: Changes whenever ``weight_OI`` does, so that its codes are made once for each value.
    """
    input, integers = rounded_input(layer, input)
    if layer.rounding.is_settled and not layer.format.scales_products:
        return F.linear(input, weight_OI, bias)
    codes = codes_for(layer, weight_OI.detach, key)
    grid = layer.rounding.grid(weight_OI) if layer.rounding.scale is not None else None
    output: Tensor = _LinearOnCodes.apply(  # type: ignore[no-untyped-call]
        input, weight_OI, bias, *(grid or (None, None)), codes, layer.format, integers
    )
    return output


def rounded_input(layer: Rounds, input: Tensor) -> tuple[Tensor, tuple[Tensor, Grid] | None]:
    """A layer's input through its grid; input and grid too where it multiplies integers."""
    if layer.input_rounding is None:
        return input, None
    rounded: Tensor
    rounded, grid = layer.input_rounding(input)
    if grid is None or not layer.format.scales_products:  # None: calibration is looking
        return rounded, None
    return rounded, (input.detach(), grid)


def codes_for(layer: Rounds, make_OI: Callable[[], Tensor], key: object) -> Codes:
    """Codes of a layer's weight, which is made only where they are not known; see ``fake_linear``.

    Args:
        layer: Says how to round.
        make_OI: Gives the weight, without its gradient.
        key: Changes whenever the weight does.
    """
    key = (key, *map(version_of, (layer.rounding.scale, layer.rounding.zero)))
    return layer.rounding.cached_codes(make_OI, key)


def multiply(
    input: Tensor,
    codes: Codes,
    bias: Tensor | None,
    format: LayerFormat,
    integers: tuple[Tensor, Grid] | None,
    dtype: torch.dtype,
) -> Tensor:
    """``linear(input, dequantize(codes), bias)`` in the order of torchao's tensor for the format.

    Args:
        input: Float, (T, I), through its grid already.
        codes: Of the weight.
        bias: Of the layer, or None.
        format: Of the layer.
        integers: As ``rounded_input`` gives it.
        dtype: Of the float weight.
    """
    bias = None if bias is None else bias.to(input.dtype)
    if format.scales_products:
        return _scaled_products(input, codes, bias, integers)
    return F.linear(input, numerics.dequantize(codes, dtype).to(input.dtype), bias)


def in_compute_dtype(input: Tensor) -> Tensor:
    """The input in the dtype that autocast, if it is on, multiplies in."""
    device = input.device.type
    return (
        input.to(torch.get_autocast_dtype(device)) if torch.is_autocast_enabled(device) else input
    )


class _LinearOnCodes(torch.autograd.Function):
    """``linear(input, dequantize(codes), bias)`` that keeps codes, not floats, for the backward.

    Without a grid the weight's gradient passes straight through; with one, it is that of
    ``numerics.fake_quantize_on``.
    """

    @staticmethod
    def forward(
        ctx: torch.autograd.function.FunctionCtx,
        input: Tensor,
        weight_OI: Tensor,
        bias: Tensor | None,
        scale_OG: Tensor | None,
        zero_OG: Tensor | None,
        codes: Codes,
        format: LayerFormat,
        integers: tuple[Tensor, Grid] | None,
    ) -> Tensor:
        input_dtype, input = input.dtype, in_compute_dtype(input)
        weight_kept = weight_OI if scale_OG is not None else None
        ctx.save_for_backward(input, weight_kept, scale_OG, zero_OG, *codes)  # type: ignore[arg-type]
        ctx.weight_dtype, ctx.input_dtype = weight_OI.dtype, input_dtype  # type: ignore[attr-defined]
        ctx.fmt = format.weight  # type: ignore[attr-defined]
        return multiply(input, codes, bias, format, integers, weight_OI.dtype)

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, grad: Tensor) -> tuple[object, ...]:
        input, weight_OI, scale_OG, zero_OG, *codes = ctx.saved_tensors  # type: ignore[attr-defined]
        needs_input, needs_weight, needs_bias, needs_scale, *_ = ctx.needs_input_grad  # type: ignore[attr-defined]
        weight_dtype: torch.dtype = ctx.weight_dtype  # type: ignore[attr-defined]
        grad_TO = grad.reshape(-1, grad.shape[-1])
        grad_input = grad_weight = grad_bias = grad_scale = grad_zero = None
        if needs_input:
            numbers_OI = numerics.dequantize(Codes(*codes), weight_dtype).to(grad.dtype)
            input_dtype: torch.dtype = ctx.input_dtype  # type: ignore[attr-defined]
            grad_input = (grad_TO @ numbers_OI).view(input.shape).to(input_dtype)
        if needs_weight or needs_scale:
            grad_weight = (grad_TO.t() @ input.reshape(-1, input.shape[-1])).to(weight_dtype)
            if scale_OG is not None:
                fmt: WeightFormat = ctx.fmt  # type: ignore[attr-defined]
                grad_weight, grad_scale, grad_zero = numerics.learned_gradients(
                    grad_weight, weight_OI, Grid(scale_OG, zero_OG), fmt
                )
        if needs_bias:
            grad_bias = grad_TO.sum(dim=0).to(weight_dtype)
        return grad_input, grad_weight, grad_bias, grad_scale, grad_zero, None, None, None


def _scaled_products(
    input: Tensor, codes: Codes, bias: Tensor | None, integers: tuple[Tensor, Grid] | None
) -> Tensor:
    """Multiply codes by codes and scale the sums, in the order of torchao's ``Int8Tensor``.

    Sums of products of codes are whole numbers that a float32 holds, so nothing is rounded before
    the scales come in, and the result is torchao's to the bit. Codes of the input are taken from
    what it was before it was rounded: in bfloat16 they could not all be told from what it is after.
    """
    codes_OI, scale_O = codes.codes_OI.to(input.dtype), codes.scale_OG.to(input.dtype).flatten()
    if integers is None:
        output = F.linear(input, codes_OI) * scale_O
    else:
        unrounded, input_grid = integers
        scale = input_grid.scale
        # Sums of products do not fit a float16.
        wide = torch.float32 if input.dtype == torch.float16 else input.dtype
        with torch.autocast(input.device.type, enabled=False):
            codes_TI = numerics.input_codes(unrounded, input_grid).to(wide)
            sums = F.linear(codes_TI, codes_OI.to(wide))
        scaled = (sums * scale).to(input.dtype)
        if input_grid.zero is not None:
            sum_O = codes.codes_OI.sum(dim=-1).to(scale.dtype)
            scaled = scaled - ((input_grid.zero * scale) * sum_O).to(input.dtype)
        output = scaled * scale_O
    return output if bias is None else output + bias


def version_of(tensor: Tensor | None) -> tuple[int, int] | None:
    """Changes whenever a tensor is written to in place, as optimizers do."""
    return None if tensor is None else (tensor.data_ptr(), tensor._version)
