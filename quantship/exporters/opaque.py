"""Quantized layers of a module as boxes that a trace goes around: a name, a shape, no weights.

A trace through torchao's tensors would write their floats, or fail. So every quantized layer is
replaced by one that emits a single symbolic operator with the layer's name; the lowerings put the
codes in its place afterwards. Biases are added by PyTorch's own operators.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchao.utils import TorchAOBaseTensor

from quantship.exporters.convolution import Geometry
from quantship.quant.convolution import QuantizedConv2d
from quantship.quant.numerics import Codes, Grid
from quantship.quant.tensors import StoredCodes, stored_in

DOMAIN = "quantship"
"""Of the symbolic operators; none of them is left in a finished graph."""
MATRIX, ROWS, CONVOLUTION = "Matrix", "Rows", "Convolution"
"""The operators: multiply by a matrix, look up its rows, convolve."""
LAYER = "layer"
"""Attribute that names the codes."""
Emit = Callable[[str, str, Tensor, tuple[Any, ...]], Tensor]
"""What a box does in a trace."""


@dataclass(frozen=True)
class Boxed:
    """A module without quantized weights, and the codes that belong into it.

    Args:
        module: Float parameters it shares with the module it was made of.
        codes: By layer name; a matrix that layers share goes by the name of the first.
        geometries: Of the convolutions among them, by layer name.
    """

    module: nn.Module
    codes: dict[str, StoredCodes]
    geometries: dict[str, Geometry]


def box(module: nn.Module) -> Boxed:
    """Replace every quantized layer in a copy of a module, in float32.

    Args:
        module: With layers as ``quantship.convert`` or ``loading.load`` make them, or with none.
    """
    tensors = [*module.parameters(), *module.buffers()]
    made = copy.deepcopy(module, {id(one): one for one in tensors})
    codes: dict[str, StoredCodes] = dict(stored_in(module))
    geometries: dict[str, Geometry] = {}
    owners: dict[int, str] = {id(module.get_submodule(name).weight): name for name in codes}
    boxes: dict[nn.Module, nn.Module] = {}
    for name, layer in list(made.named_modules(remove_duplicate=False)):
        if isinstance(layer, QuantizedConv2d):
            if layer not in boxes:
                codes[name], geometries[name] = _convolution_codes(name, layer)
                boxes[layer] = _Convolution(name, layer, geometries[name])
        elif isinstance(getattr(layer, "weight", None), TorchAOBaseTensor):
            if layer not in boxes:
                kind = _Rows if isinstance(layer, nn.Embedding) else _Matrix
                boxes[layer] = kind(owners[id(layer.weight)], layer)
        else:
            continue
        made.set_submodule(name, boxes[layer])
    if any(
        one.is_floating_point() and one.dtype != torch.float32 for one in made.state_dict().values()
    ):
        made = copy.deepcopy(made).float()
    return Boxed(made.cpu().eval(), codes, geometries)


class _Matrix(nn.Module):
    """Stands for a linear layer."""

    def __init__(self, name: str, linear: Any) -> None:
        super().__init__()
        self.layer, self.bias = name, linear.bias
        self.out_features, self.in_features = linear.weight.shape
        self.weight = torch.empty(0)  # for whoever asks for its dtype

    def forward(self, input: Tensor) -> Tensor:
        vector = input.dim() == 1
        rows = input[None] if vector else input
        output = _symbol(MATRIX, self.layer, rows, (*rows.shape[:-1], self.out_features))
        output = output[0] if vector else output
        return output if self.bias is None else output + self.bias


class _Rows(nn.Module):
    """Stands for an embedding."""

    def __init__(self, name: str, embedding: Any) -> None:
        super().__init__()
        self.layer = name
        self.num_embeddings, self.embedding_dim = embedding.weight.shape
        self.padding_idx = embedding.padding_idx
        self.weight = torch.empty(0)

    def forward(self, input: Tensor) -> Tensor:
        # The lowerings look up ids of (batch, sequence).
        ids = input if input.dim() == 2 else input.reshape(1, -1)
        rows = _symbol(ROWS, self.layer, ids, (*ids.shape, self.embedding_dim))
        return rows if input.dim() == 2 else rows.reshape(*input.shape, self.embedding_dim)


class _Convolution(nn.Module):
    """Stands for a convolution."""

    def __init__(self, name: str, layer: QuantizedConv2d, geometry: Geometry) -> None:
        super().__init__()
        self.layer, self.bias, self.geometry = name, layer.bias, geometry
        self.mode = layer.padding_mode
        self.around = list(layer._reversed_padding_repeated_twice)
        self.weight = torch.empty(0)

    def forward(self, input: Tensor) -> Tensor:
        if self.mode != "zeros":
            input = F.pad(input, self.around, mode=self.mode)
        single = input.dim() == 3
        images = input[None] if single else input
        shape = self.geometry
        top, left, bottom, right = shape.pads
        sizes = [
            (size + before + after - dilation * (kernel - 1) - 1) // stride + 1
            for size, before, after, dilation, kernel, stride in zip(
                images.shape[2:],
                (top, left),
                (bottom, right),
                shape.dilations,
                shape.weight_shape[2:],
                shape.strides,
                strict=True,
            )
        ]
        whole = (images.shape[0], shape.weight_shape[0], *sizes)
        output = _symbol(CONVOLUTION, self.layer, images, whole)
        output = output[0] if single else output
        return output if self.bias is None else output + self.bias[:, None, None]


@contextlib.contextmanager
def emitting(emit: Emit) -> Iterator[None]:
    """Let boxes emit something other than ONNX's symbolic operators for as long as this lasts.

    Args:
        emit: Given the operator, the layer's name, its input and the shape of its result, the
            result.
    """
    global _emit
    before = _emit
    _emit = emit
    try:
        yield
    finally:
        _emit = before


def _symbol(operator: str, layer: str, input: Tensor, shape: tuple[Any, ...]) -> Tensor:
    return _emit(operator, layer, input, shape)


def _onnx_symbol(operator: str, layer: str, input: Tensor, shape: tuple[Any, ...]) -> Tensor:
    return torch.onnx.ops.symbolic(
        f"{DOMAIN}::{operator}",
        (input,),
        {LAYER: layer},
        dtype=torch.float32,
        shape=shape,
        version=1,
    )


_emit: Emit = _onnx_symbol


def _convolution_codes(name: str, layer: QuantizedConv2d) -> tuple[StoredCodes, Geometry]:
    codes = Codes(layer.codes.flatten(1), layer.weight_scale)
    grid = Grid(layer.input_scale, layer.input_zero)
    around = (
        list(layer._reversed_padding_repeated_twice) if layer.padding_mode == "zeros" else [0] * 4
    )
    left, right, top, bottom = around
    geometry = Geometry(
        tuple(layer.codes.shape),
        _pair(layer.stride),
        _pair(layer.dilation),
        (top, left, bottom, right),
        layer.groups,
    )
    return StoredCodes(name, codes, 8, layer.activation, grid), geometry


def _pair(numbers: Any) -> tuple[int, ...]:
    return tuple(int(number) for number in numbers)
