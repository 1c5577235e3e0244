"""Find the static input ranges of a fake-quantized model by running data through it.

The weights are rounded while it looks, the inputs are not: ranges are those that the quantized
layers will see but for the rounding of other inputs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, nn

from quantship.quant.rounding import InputRounding
from quantship.quant.statistics import (
    FROM_HISTOGRAM,
    InputStatistics,
    Options,
    Watch,
    require_sound,
)


def static_inputs(model: nn.Module) -> dict[str, InputRounding]:
    """The static input roundings of a fake-quantized model, by name."""
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, InputRounding) and module.fmt.ranges == "static"
    }


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
        batches: Data to look at; gone through twice for ranges that are read off a histogram.
        run: Runs the model on a batch.
        options: Which range to take.
        learned: Whether the grids are trained from there.

    Returns:
        Number of ranges set.

    Raises:
        ValueError: There was no data, or a layer never ran.
        QuantshipError: An input held NaN or infinity.
    """
    inputs = static_inputs(model)
    if not inputs:
        return 0
    seen = observe(model, inputs, batches, run, counts=options.range in FROM_HISTOGRAM)
    for name, rounding in inputs.items():
        rounding.set_grid(seen[name].grid(options, rounding.fmt), learned=learned)
    return len(inputs)


@torch.no_grad()
def observe(
    model: nn.Module,
    inputs: Mapping[str, InputRounding],
    batches: Iterable[object],
    run: Callable[[object], object],
    *,
    counts: bool,
) -> dict[str, InputStatistics]:
    """What there is to see of inputs, by name, while the model runs in evaluation mode.

    Args:
        model: Fake-quantized model; its mode is kept.
        inputs: Roundings of the inputs to look at, by name; nothing is rounded meanwhile.
        batches: Data to look at.
        run: Runs the model on a batch.
        counts: Go through the data once more, for the histograms.

    Raises:
        ValueError: There was no data, or a layer never ran.
        QuantshipError: An input held NaN or infinity.
    """
    kept = list(batches)
    seen = {name: InputStatistics() for name in inputs}
    watch = Watch(seen)
    _look(model, inputs, watch.see, kept, run)
    require_sound({name.removesuffix(".input_rounding"): one for name, one in seen.items()})
    if counts:
        _look(model, inputs, watch.count, kept, run)
    return seen


def _look(
    model: nn.Module,
    inputs: Mapping[str, InputRounding],
    watch: Callable[[str, Tensor], None],
    batches: list[object],
    run: Callable[[object], object],
) -> None:
    was_training = model.training
    model.eval()
    with _watched(inputs, watch):
        for batch in batches:
            run(batch)
    model.train(was_training)


@contextmanager
def _watched(
    inputs: Mapping[str, InputRounding], watch: Callable[[str, Tensor], None]
) -> Iterator[None]:
    try:
        for name, rounding in inputs.items():
            rounding.observer = partial(watch, name)
        yield
    finally:
        for rounding in inputs.values():
            rounding.observer = None
