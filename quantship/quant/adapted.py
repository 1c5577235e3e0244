"""A layer with peft's adapter whose base + adapter is what is rounded."""

from __future__ import annotations

from typing import Any

import torch
from peft.tuners import lora
from torch import Tensor, nn

from quantship.quant import numerics
from quantship.quant.layers import is_transposed
from quantship.quant.linear import (
    codes_for,
    fake_linear,
    in_compute_dtype,
    multiply,
    rounded_input,
    version_of,
)
from quantship.quant.modules import FakeQuantConv1D, FakeQuantLinear
from quantship.quant.nf4 import dense
from quantship.quant.numerics import Codes, Grid


class AdaptedLinear(lora.Linear):
    """peft's adapter of a fake-quantized layer: sees base + adapter through the grid.

    Without an adapter, or with it switched off, the base alone.
    """

    base_layer: FakeQuantLinear | FakeQuantConv1D

    def __init__(self, base_layer: nn.Module, adapter_name: str, **kwargs: Any) -> None:
        super().__init__(base_layer, adapter_name, **kwargs)
        self.fan_in_fan_out = is_transposed(base_layer)

    def _get_in_out_features(self, module: nn.Module) -> Any:
        if isinstance(module, FakeQuantConv1D):
            return module.nx, module.nf
        return module.in_features, module.out_features

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Float in, float out: (T, I) to (T, O)."""
        base, bias = self.base_layer, self.base_layer.bias
        if self.disable_adapters or self.merged:
            weight = dense(base.weight)
            weight_OI = weight.t() if self.fan_in_fan_out else weight
            return fake_linear(base, x, weight_OI, bias, key=("base", version_of(base.weight)))
        a_RI, b_OR = self._adapter()
        x, integers = rounded_input(base, x)
        codes = codes_for(base, self.weight_OI, (version_of(a_RI), version_of(b_OR)))
        grid = base.rounding.grid(a_RI) if base.rounding.scale is not None else (None, None)
        output: Tensor = _LinearOnMergedCodes.apply(  # type: ignore[no-untyped-call]
            x, a_RI, b_OR, *grid, bias, codes, integers, self
        )
        return output

    @torch.no_grad()
    def weight_OI(self) -> Tensor:
        """Base + adapter, as peft merges them."""
        base = self.base_layer.weight
        # Weights are merged outside of training as well, where there is no autocast.
        with torch.autocast(base.device.type, enabled=False):
            delta = self.get_delta_weight(self._name())
            weight = (dense(base) + delta).to(base.dtype)
        return weight.t() if self.fan_in_fan_out else weight

    def _name(self) -> str:
        name: str
        (name,) = self.active_adapters
        return name

    def _adapter(self) -> tuple[Tensor, Tensor]:
        name = self._name()
        return self.lora_A[name].weight, self.lora_B[name].weight  # type: ignore[return-value]


class _LinearOnMergedCodes(torch.autograd.Function):
    """``linear`` on the codes of base + adapter that keeps codes, not floats, for the backward.

    Where the gradient passes straight through the rounding, that of the (O, I) weight is never
    made: an adapter of rank R needs its products with A and B only.
    """

    @staticmethod
    def forward(
        ctx: torch.autograd.function.FunctionCtx,
        input: Tensor,
        a_RI: Tensor,
        b_OR: Tensor,
        scale_OG: Tensor | None,
        zero_OG: Tensor | None,
        bias: Tensor | None,
        codes: Codes,
        integers: tuple[Tensor, Grid] | None,
        layer: AdaptedLinear,
    ) -> Tensor:
        input_dtype, input = input.dtype, in_compute_dtype(input)
        ctx.save_for_backward(input, a_RI, b_OR, scale_OG, zero_OG, *codes)  # type: ignore[arg-type]
        ctx.layer, ctx.input_dtype = layer, input_dtype  # type: ignore[attr-defined]
        base = layer.base_layer
        return multiply(input, codes, bias, base.format, integers, base.weight.dtype)

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, grad: Tensor) -> tuple[object, ...]:
        input, a_RI, b_OR, scale_OG, zero_OG, *codes = ctx.saved_tensors  # type: ignore[attr-defined]
        layer: AdaptedLinear = ctx.layer  # type: ignore[attr-defined]
        needs_input, needs_a, needs_b, *_ = ctx.needs_input_grad  # type: ignore[attr-defined]
        scaling, dtype = layer.scaling[layer._name()], layer.base_layer.weight.dtype
        grad_TO, input_TI = grad.reshape(-1, grad.shape[-1]), input.reshape(-1, input.shape[-1])
        grad_input = grad_a = grad_b = grad_scale = grad_zero = None
        if needs_input:
            numbers_OI = numerics.dequantize(Codes(*codes), dtype).to(grad.dtype)
            grad_input = (grad_TO @ numbers_OI).view(input.shape)
            grad_input = grad_input.to(ctx.input_dtype)  # type: ignore[attr-defined]
        if scale_OG is None:
            if needs_a:
                grad_a = (grad_TO @ b_OR.to(grad.dtype)).t() @ input_TI
            if needs_b:
                grad_b = grad_TO.t() @ (input_TI @ a_RI.to(grad.dtype).t())
        else:
            grad_OI, grad_scale, grad_zero = numerics.learned_gradients(
                (grad_TO.t() @ input_TI).to(dtype),
                layer.weight_OI(),  # made again, rather than kept
                Grid(scale_OG, zero_OG),
                layer.base_layer.format.weight,
            )
            grad_a, grad_b = b_OR.to(dtype).t() @ grad_OI, grad_OI @ a_RI.to(dtype).t()
        if grad_a is not None:
            grad_a = grad_a.to(a_RI.dtype).mul_(scaling)
        if grad_b is not None:
            grad_b = grad_b.to(b_OR.dtype).mul_(scaling)
        return grad_input, grad_a, grad_b, grad_scale, grad_zero, None, None, None, None
