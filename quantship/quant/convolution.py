"""Convolutions on the integer grid: one to train with, and one that holds the codes.

torchao has no tensor for them, so a quantized convolution is a layer of its own. Both do the very
same operations on floats, so their outputs are equal to the bit.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from quantship.quant import numerics
from quantship.quant.numerics import Codes, Grid
from quantship.quant.rounding import InputRounding, WeightRounding
from quantship.quant.scheme import ActivationFormat, LayerFormat

_SHAPE = (
    "in_channels",
    "out_channels",
    "kernel_size",
    "stride",
    "padding",
    "dilation",
    "transposed",
    "output_padding",
    "groups",
    "padding_mode",
    "_reversed_padding_repeated_twice",
)
"""Attributes of a Conv2d that say what it does with its weight."""


def unserved(format: LayerFormat) -> str | None:
    """Why a convolution cannot take a format, or None where it can."""
    weight, activation = format.weight, format.activation
    if (
        weight.bits == 8
        and weight.symmetric
        and weight.granularity != "per_group"
        and activation is not None
        and activation.ranges == "static"
    ):
        return None
    return (
        "convolutions take 8-bit symmetric weights with one scale a channel or tensor, and static "
        "inputs, as in scheme 'w8a8-static'"
    )


class FakeQuantConv2d(nn.Conv2d):
    """A convolution that sees its weight and its input through the integer grid."""

    def __init__(self, convolution: nn.Conv2d, format: LayerFormat) -> None:
        nn.Module.__init__(self)
        _take_shape(self, convolution)
        self.weight, self.bias = convolution.weight, convolution.bias
        self.format = format
        assert format.activation is not None
        self.rounding = WeightRounding(format.weight)
        self.input_rounding = InputRounding(format.activation)

    def forward(self, input: Tensor) -> Tensor:
        """Float in, float out, as ``nn.Conv2d``."""
        input, _ = self.input_rounding(input)
        weight = self.rounding.fake_quantize(self.weight.flatten(1)).view_as(self.weight)
        output: Tensor = self._conv_forward(input, weight, self.bias)
        return output

    def plain(self) -> nn.Conv2d:
        """The layer that this one has replaced."""
        convolution = nn.Conv2d.__new__(nn.Conv2d)
        nn.Module.__init__(convolution)
        _take_shape(convolution, self)
        convolution.weight, convolution.bias = self.weight, self.bias
        return convolution

    def quantized(self, input_grid: Grid) -> QuantizedConv2d:
        """The layer that holds the codes that this one computes with on such inputs."""
        codes = self.rounding.codes(self.weight.detach().flatten(1))
        made = QuantizedConv2d(self, self.weight.dtype, symmetric=input_grid.zero is None)
        made.fill(codes, input_grid, None if self.bias is None else self.bias.detach().clone())
        return made


class QuantizedConv2d(nn.Conv2d):
    """A convolution that keeps its weight as 8-bit codes, and makes floats of them when it runs.

    Args:
        convolution: Whose strides, padding and so on it takes.
        dtype: Of the float weight.
        symmetric: Whether the input has no zero point.
    """

    codes: Tensor
    """int8, of the shape of the float weight."""
    weight_scale: Tensor
    """(out channels, 1), or (1, 1) for one scale in all."""
    input_scale: Tensor
    input_zero: Tensor | None

    def __init__(self, convolution: nn.Conv2d, dtype: torch.dtype, *, symmetric: bool) -> None:
        nn.Module.__init__(self)
        _take_shape(self, convolution)
        self.register_parameter("weight", None)
        self.register_parameter("bias", None)
        for name in ("codes", "weight_scale", "input_scale", "input_zero"):
            self.register_buffer(name, None)
        self.dtype = dtype
        self.activation = ActivationFormat(
            granularity="per_tensor", ranges="static", symmetric=symmetric
        )

    def fill(self, codes: Codes, grid: Grid, bias: Tensor | None) -> None:
        """Take weight and input grid; ``codes`` are (out channels, all that they sum over)."""
        shape = (self.out_channels, self.in_channels // self.groups, *self.kernel_size)
        self.codes, self.weight_scale = codes.codes_OI.view(shape), codes.scale_OG.detach()
        self.input_scale, self.input_zero = grid
        self.bias = None if bias is None else nn.Parameter(bias, requires_grad=False)

    def forward(self, input: Tensor) -> Tensor:
        """Float in, float out, as ``nn.Conv2d``."""
        grid = Grid(self.input_scale, self.input_zero)
        input = numerics.fake_quantize_input(input, self.activation, grid)
        codes = Codes(self.codes.flatten(1), self.weight_scale)
        weight = numerics.dequantize(codes, self.dtype).view(self.codes.shape)
        output: Tensor = self._conv_forward(input, weight, self.bias)
        return output


def _take_shape(target: nn.Conv2d, source: nn.Conv2d) -> None:
    for name in _SHAPE:
        setattr(target, name, getattr(source, name))
