"""Find the static input ranges of a fake-quantized model by running data through it.

The weights are rounded while it looks, the inputs are not: ranges are those that the quantized
layers will see but for the rounding of other inputs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Literal, Protocol

import torch
from torch import Tensor, nn

from quantship.quant import numerics
from quantship.quant.numerics import Grid
from quantship.quant.rounding import InputRounding
from quantship.quant.scheme import ActivationFormat

InputRange = Literal["minmax", "moving_average", "percentile", "mse"]
AVERAGING = 0.1
"""Weight of a batch in the moving average."""
BINS = 4096
"""Bins of the histogram that percentile and mse are read off."""
SHRINK_STEPS = 80
"""Ranges that the search for the least squared error tries, down to a fifth."""


class Options(Protocol):
    """How ranges are found; see ``recipe.rounding_options.Calibration``."""

    @property
    def range(self) -> InputRange:
        """Which range."""

    @property
    def percentile(self) -> float:
        """Per cent of the numbers that it holds, for ``percentile``."""


def static_inputs(model: nn.Module) -> dict[str, InputRounding]:
    """The static input roundings of a fake-quantized model, by name."""
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, InputRounding) and module.fmt.ranges == "static"
    }


@torch.no_grad()
def calibrate(
    model: nn.Module,
    batches: Iterable[object],
    run: Callable[[object], object],
    options: Options,
    *,
    learned: bool = False,
) -> int:
    """Set the grid of every static input range.

    Args:
        model: Fake-quantized model; its mode is kept, it runs in evaluation mode.
        batches: Data to look at; gone through twice for ``percentile`` and ``mse``.
        run: Runs the model on a batch.
        options: Which range to take.
        learned: Whether the grids are trained from there.

    Returns:
        Number of ranges set.

    Raises:
        ValueError: There was no data, or a layer never ran.
    """
    inputs = static_inputs(model)
    if not inputs:
        return 0
    kept = list(batches)
    extremes = {name: _Extremes(averages=options.range == "moving_average") for name in inputs}
    _look(model, inputs, extremes, kept, run)
    idle = [name for name, seen in extremes.items() if seen.lowest is None]
    if idle:
        raise ValueError(f"no calibration data reached {', '.join(idle[:3])}")
    histograms: dict[str, _Histogram] = {}
    if options.range in ("percentile", "mse"):
        histograms = {name: _Histogram(*seen.range()) for name, seen in extremes.items()}
        _look(model, inputs, histograms, kept, run)
    for name, rounding in inputs.items():
        lowest, highest = extremes[name].range()
        if options.range == "percentile":
            lowest, highest = histograms[name].percentile(options.percentile)
        elif options.range == "mse":
            lowest, highest = histograms[name].least_error(rounding.fmt)
        shape = (1,) * extremes[name].num_dims  # torchao wants as many as the input has
        grid = numerics.input_grid(lowest.view(shape), highest.view(shape), rounding.fmt)
        rounding.set_grid(grid, learned=learned)
    return len(inputs)


class _Observer(Protocol):
    def see(self, input: Tensor) -> None: ...


def _look(
    model: nn.Module,
    inputs: dict[str, InputRounding],
    observers: dict[str, _Extremes] | dict[str, _Histogram],
    batches: list[object],
    run: Callable[[object], object],
) -> None:
    was_training = model.training
    model.eval()
    with _observed(inputs, observers):
        for batch in batches:
            run(batch)
    model.train(was_training)


@contextmanager
def _observed(
    inputs: dict[str, InputRounding], observers: dict[str, _Extremes] | dict[str, _Histogram]
) -> Iterator[None]:
    try:
        for name, rounding in inputs.items():
            rounding.observer = observers[name].see
        yield
    finally:
        for rounding in inputs.values():
            rounding.observer = None


class _Extremes:
    """Least and greatest number: of all batches, or their moving average over batches."""

    def __init__(self, *, averages: bool) -> None:
        self._averages = averages
        self.lowest: Tensor | None = None
        self.highest: Tensor | None = None
        self.num_dims = 0

    def see(self, input: Tensor) -> None:
        lowest, highest = input.amin(), input.amax()
        if self.lowest is None or self.highest is None:
            self.lowest, self.highest, self.num_dims = lowest, highest, input.dim()
        elif self._averages:
            self.lowest = self.lowest.lerp(lowest, AVERAGING)
            self.highest = self.highest.lerp(highest, AVERAGING)
        else:
            self.lowest = torch.minimum(self.lowest, lowest)
            self.highest = torch.maximum(self.highest, highest)

    def range(self) -> tuple[Tensor, Tensor]:
        assert self.lowest is not None
        assert self.highest is not None
        return self.lowest, self.highest


class _Histogram:
    """How often numbers occur, in bins between the extremes."""

    def __init__(self, lowest: Tensor, highest: Tensor) -> None:
        self._lowest, self._highest = float(lowest), max(float(highest), float(lowest) + 1e-12)
        self._counts = torch.zeros(BINS, dtype=torch.float64)

    def see(self, input: Tensor) -> None:
        flat = input.detach().float().flatten().cpu()
        self._counts += torch.histc(flat, BINS, self._lowest, self._highest)

    def percentile(self, percentile: float) -> tuple[Tensor, Tensor]:
        """The range without the same share of numbers on either side."""
        share = self._counts.cumsum(0) / self._counts.sum()
        outside = (100 - percentile) / 200
        first = int((share <= outside).sum())
        last = int((share < 1 - outside).sum())
        edges = torch.linspace(self._lowest, self._highest, BINS + 1)
        return edges[first], edges[min(last, BINS - 1) + 1]

    def least_error(self, fmt: ActivationFormat) -> tuple[Tensor, Tensor]:
        """The range, shrunk from the extremes, with the least squared rounding error."""
        edges = torch.linspace(self._lowest, self._highest, BINS + 1)
        centres = (edges[:-1] + edges[1:]) / 2
        best, least = (edges[0], edges[-1]), float("inf")
        for step in range(SHRINK_STEPS):
            share = 1 - step / (SHRINK_STEPS + SHRINK_STEPS / 4)
            lowest, highest = edges[0] * share, edges[-1] * share
            grid: Grid = numerics.input_grid(lowest, highest, fmt)
            rounded = numerics.fake_quantize_input(centres, fmt, grid)
            error = float(((rounded - centres).double().square() * self._counts).sum())
            if error < least:
                best, least = (lowest, highest), error
        return best
