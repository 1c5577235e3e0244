"""Quantize, dequantize, fake-quantize: pure functions, and the only place with this arithmetic.

They repeat torchao's affine primitives operation for operation (``choose_qparams_affine``,
``quantize_affine``, ``dequantize_affine`` of torchao 0.18, symmetric and asymmetric mapping), so
that what was trained here is to the bit what a torchao checkpoint computes; a contract test holds
the two together. Shapes: O out features, I in features, G groups, T tokens (any leading shape).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from quantship.quant.scheme import WeightFormat


class Codes(NamedTuple):
    """An integer matrix and the scales that give its codes their size.

    Args:
        codes_OI: int8, within the range of the format's bits.
        scale_OG: Same floating dtype as the weight it was made from.
    """

    codes_OI: Tensor
    scale_OG: Tensor


def code_range(bits: int) -> tuple[int, int]:
    """Smallest and largest signed code of that many bits."""
    return -(1 << (bits - 1)), (1 << (bits - 1)) - 1


def choose_scale(weight_OI: Tensor, fmt: WeightFormat) -> Tensor:
    """Symmetric min-max scales, of shape (O, G), in the weight's dtype.

    Raises:
        ValueError: The group size does not divide the in features.
    """
    low, high = code_range(fmt.bits)
    grouped_OGS = _grouped(weight_OI, fmt)
    # Two reductions without a temporary: on a CPU abs() and aminmax are slower.
    largest_OG = torch.maximum(grouped_OGS.amax(dim=-1), -grouped_OGS.amin(dim=-1))
    return (largest_OG / ((high - low) / 2)).clamp(min=torch.finfo(weight_OI.dtype).smallest_normal)


def quantize(weight_OI: Tensor, scale_OG: Tensor, fmt: WeightFormat) -> Tensor:
    """Nearest codes of a weight under given scales: int8 of shape (O, I)."""
    return _rounded(weight_OI, scale_OG, fmt).to(torch.int8).view(weight_OI.shape)


def dequantize(codes: Codes) -> Tensor:
    """The numbers that codes stand for, of shape (O, I), in the scales' dtype."""
    num_out, num_groups = codes.scale_OG.shape
    grouped_OGS = codes.codes_OI.view(num_out, num_groups, -1).to(codes.scale_OG.dtype)
    return grouped_OGS.mul_(codes.scale_OG.unsqueeze(-1)).view(codes.codes_OI.shape)


def round_to_nearest(weight_OI: Tensor, fmt: WeightFormat) -> Codes:
    """Codes and scales of a weight: min-max scales, nearest codes."""
    scale_OG = choose_scale(weight_OI, fmt)
    return Codes(quantize(weight_OI, scale_OG, fmt), scale_OG)


def fake_quantize_weight(weight_OI: Tensor, fmt: WeightFormat) -> Tensor:
    """``dequantize(round_to_nearest(weight))`` to the bit, without the detour through int8.

    The gradient passes straight through: min-max scales clip nothing.
    """
    return _StraightThroughWeight.apply(weight_OI, fmt)  # type: ignore[no-any-return,no-untyped-call]


def fake_quantize_tokens(input_TI: Tensor) -> Tensor:
    """Quantize each token asymmetrically to 8 bits and back; the gradient passes straight through.

    The range of a token always holds zero, so that padding stays exact.
    """
    return _StraightThroughTokens.apply(input_TI)  # type: ignore[no-any-return,no-untyped-call]


def _rounded(weight_OI: Tensor, scale_OG: Tensor, fmt: WeightFormat) -> Tensor:
    """Nearest codes, still as floats of shape (O, G, group size), in memory of their own."""
    low, high = code_range(fmt.bits)
    scaled_OGS = _grouped(weight_OI, fmt) * (1.0 / scale_OG.unsqueeze(-1))
    return scaled_OGS.round_().clamp_(low, high)


def _grouped(weight_OI: Tensor, fmt: WeightFormat) -> Tensor:
    num_out, num_in = weight_OI.shape
    group = fmt.group_size or num_in
    if num_in % group:
        raise ValueError(f"a group size of {group} does not divide {num_in} input features")
    return weight_OI.reshape(num_out, num_in // group, group)


class _StraightThroughWeight(torch.autograd.Function):
    @staticmethod
    def forward(ctx: object, weight_OI: Tensor, fmt: WeightFormat) -> Tensor:
        scale_OG = choose_scale(weight_OI, fmt)
        # Rounding leaves -0.0 where the integer code is 0, whose sign is plus: adding 0.0 mends it.
        codes_OGS = _rounded(weight_OI, scale_OG, fmt).add_(0.0)
        return codes_OGS.mul_(scale_OG.unsqueeze(-1)).view(weight_OI.shape)

    @staticmethod
    def backward(ctx: object, grad_OI: Tensor) -> tuple[Tensor, None]:
        return grad_OI, None


class _StraightThroughTokens(torch.autograd.Function):
    @staticmethod
    def forward(ctx: object, input_TI: Tensor) -> Tensor:
        low, high = code_range(8)
        smallest_T1 = input_TI.amin(dim=-1, keepdim=True).clamp_(max=0)
        largest_T1 = input_TI.amax(dim=-1, keepdim=True).clamp_(min=0)
        tiny = torch.finfo(input_TI.dtype).smallest_normal
        scale_T1 = ((largest_T1 - smallest_T1) / float(high - low)).clamp(min=tiny)
        zero_T1 = (low - torch.round(smallest_T1 / scale_T1)).clamp(low, high)
        codes_TI = (input_TI * (1.0 / scale_T1)).round_().add_(zero_T1).clamp_(low, high)
        return codes_TI.sub_(zero_T1).mul_(scale_T1)

    @staticmethod
    def backward(ctx: object, grad_TI: Tensor) -> Tensor:
        return grad_TI
