"""How one layer's weight and input are rounded: chosen anew, fixed by calibration, or learned."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from quantship.quant import numerics
from quantship.quant.numerics import Codes, Grid
from quantship.quant.scheme import ActivationFormat, WeightFormat

KEPT = "_quantship_rounded"
"""Attribute of a tensor that holds what it becomes as a layer's input."""


class WeightRounding(nn.Module):
    """Rounds one weight matrix, on the grid of its own range or on one that was set."""

    scale: Tensor | None
    zero: Tensor | None

    def __init__(self, fmt: WeightFormat) -> None:
        super().__init__()
        self.fmt = fmt
        self.register_buffer("scale", None)
        self.register_buffer("zero", None)
        self.keeps_codes = False
        self.is_settled = False
        """Whether the weight is, and stays, the very numbers that its codes stand for."""
        self._cached: tuple[object, Codes] | None = None

    def set_grid(self, grid: Grid, *, learned: bool) -> None:
        """Round on this grid from now on; ``learned``: it is trained along with the weights."""
        self._cached = None
        _set(self, grid, learned=learned)

    def grid(self, weight_OI: Tensor) -> Grid:
        """The grid that this weight is rounded on, scales as the file holds them."""
        if self.scale is None:
            return numerics.choose_grid(weight_OI, self.fmt)
        scale_OG, zero_OG = self.scale, self.zero
        if self.is_learned:
            scale_OG = _storable_scale(scale_OG, self.fmt)
            zero_OG = None if zero_OG is None else _whole(zero_OG, self.fmt.bits)
        return Grid(scale_OG, zero_OG)

    @property
    def is_learned(self) -> bool:
        """Whether the grid is trained."""
        return isinstance(self.scale, nn.Parameter)

    @torch.no_grad()
    def codes(self, weight_OI: Tensor) -> Codes:
        """Codes of a weight."""
        if self.scale is None:
            return numerics.round_to_nearest(weight_OI, self.fmt)
        return numerics.round_to(weight_OI, self.grid(weight_OI), self.fmt)

    def cached_codes(self, make_OI: Callable[[], Tensor], key: object) -> Codes:
        """Codes of a weight, made and rounded only when ``key`` has changed since the last call.

        Micro-batches of one optimizer step share weights, so they share codes, where the loop that
        trains has asked for it by ``keep_codes``.
        """
        if not (self.keeps_codes and self.training and torch.is_grad_enabled()):
            self._cached = None
            return self.codes(make_OI())
        if self._cached is None or self._cached[0] != key:
            self._cached = (key, self.codes(make_OI()))
        return self._cached[1]

    def fake_quantize(self, weight_OI: Tensor) -> Tensor:
        """The weight through its grid and back, with gradients."""
        if self.scale is None:
            return numerics.fake_quantize_weight(weight_OI, self.fmt)
        return numerics.fake_quantize_on(weight_OI, self.grid(weight_OI), self.fmt)

    def _apply(self, *args: Any, **kwargs: Any) -> WeightRounding:
        self._cached = None
        super()._apply(*args, **kwargs)  # type: ignore[no-untyped-call]
        return self


class InputRounding(nn.Module):
    """Rounds the input of one layer: ranges from the numbers at hand, or a static range."""

    scale: Tensor | None
    zero: Tensor | None

    def __init__(self, fmt: ActivationFormat) -> None:
        super().__init__()
        self.fmt = fmt
        self.observer: Callable[[Tensor], None] | None = None
        """Sees every input of a static range in place of rounding, while calibration looks."""
        self.register_buffer("scale", None)
        self.register_buffer("zero", None)

    def set_grid(self, grid: Grid, *, learned: bool) -> None:
        """Fix the static range; ``learned``: it is trained along with the weights."""
        _set(self, grid, learned=learned)

    def static_grid(self) -> Grid | None:
        """Grid of the static range; None where ranges are dynamic.

        Raises:
            RuntimeError: The range is static and was not calibrated.
        """
        if self.fmt.ranges == "dynamic":
            return None
        if self.scale is None:
            raise RuntimeError("static ranges were not calibrated; calibrate before running")
        if not isinstance(self.scale, nn.Parameter):
            return Grid(self.scale, self.zero)
        scale = self.scale.clamp(min=numerics.INT8_SMALLEST_SCALE)
        return Grid(scale, None if self.zero is None else _whole(self.zero, self.fmt.bits))

    def forward(self, input_TI: Tensor) -> tuple[Tensor, Grid | None]:
        """The input through its grid and back, and the grid; layers that share an input share both.

        The numbers of a dynamic range are kept on the input itself, so they live as long as it.
        """
        if self.observer is not None:
            self.observer(input_TI)
            return input_TI, None
        grid = self.static_grid()
        if grid is not None:
            return numerics.fake_quantize_input(input_TI, self.fmt, grid), grid
        # A leaf would keep itself alive through the gradient's graph; inference tensors do not
        # say when they were written to.
        keeps = not input_TI.is_leaf and not input_TI.is_inference()
        # What was rounded without a gradient has none to give to a layer that trains.
        key = (self.fmt, input_TI._version, torch.is_grad_enabled()) if keeps else None
        kept: tuple[object, Tensor, Grid] | None = getattr(input_TI, KEPT, None)
        if keeps and kept is not None and kept[0] == key:
            return kept[1:]
        grid = numerics.dynamic_grid(input_TI, self.fmt)
        rounded = numerics.fake_quantize_input(input_TI, self.fmt, grid)
        if keeps:
            setattr(input_TI, KEPT, (key, rounded, grid))
        return rounded, grid


def keep_codes(model: nn.Module) -> None:
    """Round weights once for each of their values, not for each forward pass, from now on.

    For loops that call ``weights_changed`` after each optimizer step: fused optimizers, among
    others, write to weights without leaving a trace.
    """
    for module in model.modules():
        if isinstance(module, WeightRounding):
            module.keeps_codes = True


def weights_changed(model: nn.Module) -> None:
    """Forget the codes that ``keep_codes`` has kept."""
    for module in model.modules():
        if isinstance(module, WeightRounding):
            module._cached = None


def _set(rounding: nn.Module, grid: Grid, *, learned: bool) -> None:
    for name, tensor in zip(("scale", "zero"), grid, strict=True):
        delattr(rounding, name)
        if tensor is not None and learned:
            rounding.register_parameter(name, nn.Parameter(tensor.detach().clone().float()))
        else:
            rounding.register_buffer(name, None if tensor is None else tensor.detach().clone())


def _storable_scale(scale_OG: Tensor, fmt: WeightFormat) -> Tensor:
    """A trained scale as the file will hold it; the gradient passes straight through."""
    kept_OG = scale_OG.clamp(min=torch.finfo(torch.float32).smallest_normal)
    if fmt.scale_dtype == "float32":
        return kept_OG
    return _instead(kept_OG, kept_OG.detach().bfloat16().float())


def _whole(zero: Tensor, bits: int) -> Tensor:
    """A trained zero point as a code; the gradient passes straight through."""
    return _instead(zero, zero.detach().round().clamp(*numerics.code_range(bits)))


def _instead(trained: Tensor, used: Tensor) -> Tensor:
    return _Instead.apply(trained, used)  # type: ignore[no-any-return,no-untyped-call]


class _Instead(torch.autograd.Function):
    @staticmethod
    def forward(ctx: object, trained: Tensor, used: Tensor) -> Tensor:
        return used

    @staticmethod
    def backward(ctx: object, grad: Tensor) -> tuple[Tensor, None]:
        return grad, None
