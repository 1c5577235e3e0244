"""Token embedding and output head without a float32 copy of their matrix: some rows at a time."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from quantship.quant.linear import multiply
from quantship.quant.numerics import Codes, dequantize
from quantship.quant.scheme import LayerFormat

CHUNK_NUMBERS = 1 << 22
"""Numbers of a matrix that are in float32 at the same time."""

Rows = Callable[[Tensor], Tensor]
"""The rows of a matrix (ids,) in float32 (ids, I)."""
Product = Callable[[Tensor, slice, Tensor | None], Tensor]
"""An input (T, I) by the rows of a slice of a matrix, and the bias of these: (T, rows)."""


def chunks(num_rows: int, width: int) -> Iterator[slice]:
    """Slices that cut the rows of a matrix into parts of bounded size."""
    size = max(1, CHUNK_NUMBERS // max(1, width))
    for start in range(0, num_rows, size):
        yield slice(start, min(start + size, num_rows))


class Embedding(nn.Module):
    """Looks rows up in a matrix that lies elsewhere, and does with them what the original does."""

    def __init__(self, original: nn.Embedding, rows: Rows) -> None:
        super().__init__()
        self.__dict__["original"] = original
        self.rows = rows
        self.num_embeddings, self.embedding_dim = original.num_embeddings, original.embedding_dim

    def forward(self, input: Tensor) -> Tensor:
        """Token ids in, float vectors out."""
        used, ids = torch.unique(input.cpu(), return_inverse=True)
        small = copy.copy(self.__dict__["original"])
        small.padding_idx = None  # of a matrix with all rows
        small._parameters = {"weight": nn.Parameter(self.rows(used), requires_grad=False)}
        looked_up: Tensor = small(ids)
        return looked_up.to(input.device)


class Head(nn.Module):
    """Multiplies by a matrix that lies elsewhere, some rows at a time."""

    def __init__(self, original: nn.Linear, product: Product) -> None:
        super().__init__()
        self.num_rows, self.width = original.out_features, original.in_features
        bias = original.bias
        self.bias = None if bias is None else nn.Parameter(bias.detach().float(), False)
        self.product = product

    def forward(self, input: Tensor) -> Tensor:
        """Hidden states (T, I) in, logits (T, O) out."""
        # Filled piece by piece: results kept between what is freed would cut memory into pieces.
        logits = input.new_empty((*input.shape[:-1], self.num_rows))
        for rows in chunks(self.num_rows, self.width):
            bias = None if self.bias is None else self.bias[rows]
            logits[..., rows] = self.product(input, rows, bias)
        return logits


def float_rows(weight_OI: Tensor) -> Rows:
    """Rows of a float matrix of any dtype."""
    return lambda ids: weight_OI[ids].float()


def float_product(weight_OI: Tensor) -> Product:
    """Products with a float matrix of any dtype."""

    def product(input: Tensor, rows: slice, bias: Tensor | None) -> Tensor:
        # A copy in any case: where numbers lie unaligned, as in files, sums have other last bits.
        return F.linear(input, weight_OI[rows].to(input.device, torch.float32, copy=True), bias)

    return product


def code_rows(codes: Codes) -> Rows:
    """Rows of a quantized matrix."""
    return lambda ids: dequantize(_chosen(codes, ids), torch.float32)


def code_product(codes: Codes, format: LayerFormat) -> Product:
    """Products with a quantized matrix, in the order of torchao's tensor for the format."""

    def product(input: Tensor, rows: slice, bias: Tensor | None) -> Tensor:
        chosen = moved(_chosen(codes, rows), input.device)
        return multiply(input, chosen, bias, format, None, torch.float32)

    return product


def moved(codes: Codes, device: torch.device | str) -> Codes:
    """The same codes on a device."""
    codes_OI, scale_OG, zero_OG = codes
    zero_OG = None if zero_OG is None else zero_OG.to(device)
    return Codes(codes_OI.to(device), scale_OG.to(device), zero_OG)


def _chosen(codes: Codes, rows: Tensor | slice) -> Codes:
    codes_OI, scale_OG, zero_OG = codes
    if scale_OG.shape[0] == codes_OI.shape[0]:  # else one scale for the whole matrix
        scale_OG = scale_OG[rows]
        zero_OG = None if zero_OG is None else zero_OG[rows]
    return Codes(codes_OI[rows], scale_OG, zero_OG)
