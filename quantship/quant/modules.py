"""Layers that train under fake quantization, and how a model is made of them.

They hold the very parameters of the layers they replace, under the same names: tied matrices stay
tied, and a state dict saved from either loads into the other.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from quantship.quant import numerics
from quantship.quant.convolution import FakeQuantConv2d
from quantship.quant.layers import ends, formats, is_tied, is_transposed, matrix
from quantship.quant.linear import fake_linear, version_of
from quantship.quant.numerics import Codes, Grid
from quantship.quant.rounding import InputRounding, WeightRounding
from quantship.quant.scheme import ActivationFormat, LayerFormat, Scheme, WeightFormat


class FakeQuantLinear(nn.Linear):
    """A linear layer that sees its weight, and if asked its input, through the integer grid."""

    def __init__(self, linear: nn.Linear, format: LayerFormat) -> None:
        nn.Module.__init__(self)
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.weight, self.bias = linear.weight, linear.bias
        self.format = format
        self.rounding, self.input_rounding = _roundings(format)

    def forward(self, input: Tensor) -> Tensor:
        """Float in, float out: (T, I) to (T, O)."""
        return fake_linear(self, input, self.weight, self.bias, key=version_of(self.weight))

    def plain(self) -> nn.Linear:
        """The layer that this one has replaced."""
        linear = nn.Linear(self.in_features, self.out_features, self.bias is not None, "meta")
        linear.weight, linear.bias = self.weight, self.bias
        return linear


class FakeQuantConv1D(nn.Module):
    """GPT-2's linear layer, whose weight is (in features, out features), fake-quantized."""

    weight: nn.Parameter
    bias: nn.Parameter

    def __init__(self, layer: nn.Module, format: LayerFormat) -> None:
        super().__init__()
        self.nf, self.nx = layer.nf, layer.nx
        self.register_parameter("weight", layer.weight)  # type: ignore[arg-type]
        self.register_parameter("bias", layer.bias)  # type: ignore[arg-type]
        self.format = format
        self.rounding, self.input_rounding = _roundings(format)

    def forward(self, input: Tensor) -> Tensor:
        """Float in, float out: (T, I) to (T, O)."""
        return fake_linear(self, input, self.weight.t(), self.bias, key=version_of(self.weight))

    def plain(self) -> nn.Module:
        """The layer that this one has replaced."""
        from transformers.pytorch_utils import Conv1D

        with torch.device("meta"):
            layer = Conv1D(self.nf, self.nx)
        layer.weight, layer.bias = self.weight, self.bias
        return layer


class FakeQuantEmbedding(nn.Embedding):
    """A token embedding whose rows are looked up through the integer grid."""

    def __init__(self, embedding: nn.Embedding, weight: WeightFormat) -> None:
        nn.Module.__init__(self)
        self.num_embeddings, self.embedding_dim = embedding.num_embeddings, embedding.embedding_dim
        self.padding_idx, self.max_norm = embedding.padding_idx, embedding.max_norm
        self.norm_type, self.sparse = embedding.norm_type, embedding.sparse
        self.scale_grad_by_freq = embedding.scale_grad_by_freq
        self.weight = embedding.weight
        self.format = LayerFormat(weight=weight)
        self.rounding = WeightRounding(weight)

    def forward(self, input: Tensor) -> Tensor:
        """Token ids in, float vectors out."""
        fmt = self.rounding.fmt
        if fmt.granularity == "per_tensor":
            return F.embedding(input, self.rounding.fake_quantize(self.weight), self.padding_idx)
        # Scales never cross rows, so only the rows looked up need quantizing.
        rows = super().forward(input)
        flat = rows.reshape(-1, self.embedding_dim)
        if self.rounding.scale is None:
            return numerics.fake_quantize_weight(flat, fmt).view(rows.shape)
        scale_OG, zero_OG = self.rounding.grid(self.weight)
        ids = input.reshape(-1)
        grid = Grid(scale_OG[ids], None if zero_OG is None else zero_OG[ids])
        return numerics.fake_quantize_on(flat, grid, fmt).view(rows.shape)

    def plain(self) -> nn.Embedding:
        """The layer that this one has replaced."""
        embedding = nn.Embedding(
            self.num_embeddings, self.embedding_dim, self.padding_idx, device="meta"
        )
        embedding.weight = self.weight
        return embedding


FakeQuantModule = FakeQuantLinear | FakeQuantConv1D | FakeQuantEmbedding | FakeQuantConv2d


def prepare_qat(model: nn.Module, scheme: Scheme) -> nn.Module:
    """Replace, in place, every layer that the scheme quantizes by its fake-quantized twin.

    Raises:
        ValueError: A layer cannot take its format.
    """
    found = formats(model, scheme)
    embedding, head = ends(model)
    tied = is_tied(model)
    twins: dict[nn.Module, nn.Module] = {}
    # A layer that is used in several places has several names, and the first one counts.
    for name, module in list(model.named_modules(remove_duplicate=False)):
        if module not in twins:
            if name not in found or _is_twin(module, found[name]):
                continue
            twins[module] = twin(module, found[name]).train(module.training)
        model.set_submodule(name, twins[module])
    if tied and embedding in twins:
        assert isinstance(head, nn.Linear)
        _replace_tied_head(model, head, twins[embedding])
    return model


def twin(module: nn.Module, format: LayerFormat) -> FakeQuantModule:
    """The fake-quantized layer that takes the place of a layer, and has its very parameters."""
    if isinstance(module, nn.Embedding):
        return FakeQuantEmbedding(module, format.weight)
    if is_transposed(module):
        return FakeQuantConv1D(module, format)
    if isinstance(module, nn.Conv2d):
        return FakeQuantConv2d(module, format)
    assert isinstance(module, nn.Linear)
    return FakeQuantLinear(module, format)


def restore_float(model: nn.Module) -> nn.Module:
    """Put plain layers with the trained weights back in place of the fake-quantized ones."""
    plain: dict[nn.Module, nn.Module] = {}
    for name, module in list(model.named_modules(remove_duplicate=False)):
        if isinstance(module, FakeQuantModule):
            if module not in plain:
                plain[module] = module.plain().train(module.training)
            model.set_submodule(name, plain[module])
    return model


def fake_quantized(model: nn.Module) -> Iterator[tuple[str, FakeQuantModule]]:
    """Names and layers of all that is fake-quantized; of a tied pair, the embedding."""
    _, head = ends(model)
    tied = is_tied(model)
    for name, module in model.named_modules():
        if isinstance(module, FakeQuantModule) and not (tied and module is head):
            yield name, module


def codes_of(model: nn.Module) -> dict[str, Codes]:
    """The codes that a fake-quantized model computes with, by module name."""
    return {
        name: module.rounding.codes(matrix(module).detach())
        for name, module in fake_quantized(model)
    }


def input_grids(model: nn.Module) -> dict[str, Grid]:
    """Grids of the static input ranges of a fake-quantized model, by module name."""
    found: dict[str, Grid] = {}
    for name, module in fake_quantized(model):
        inputs = getattr(module, "input_rounding", None)
        grid = None if inputs is None else inputs.static_grid()
        if grid is not None:
            zero = None if grid.zero is None else grid.zero.detach()
            found[name] = Grid(grid.scale.detach(), zero)
    return found


def _is_twin(module: nn.Module, format: LayerFormat) -> bool:
    """Whether a layer is fake-quantized as it should be: its grid may hold what was trained."""
    if isinstance(module, FakeQuantEmbedding):
        return module.format.weight == format.weight
    return isinstance(module, FakeQuantModule) and module.format == format


def _replace_tied_head(model: nn.Module, head: nn.Linear, embedding: nn.Module) -> None:
    assert isinstance(embedding, FakeQuantEmbedding)
    twin = FakeQuantLinear(head, embedding.format)
    del twin.rounding
    # One matrix, one rounding. Set past nn.Module, so that it is listed in one place only.
    twin.__dict__["rounding"] = embedding.rounding
    twin.train(head.training)
    name = next(name for name, module in model.named_modules() if module is head)
    model.set_submodule(name, twin)


def _roundings(format: LayerFormat) -> tuple[WeightRounding, InputRounding | None]:
    activation: ActivationFormat | None = format.activation
    return WeightRounding(format.weight), None if activation is None else InputRounding(activation)
