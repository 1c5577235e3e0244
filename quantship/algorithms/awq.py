"""AWQ: scale up the input features that matter before rounding, and fold the scales away.

What rounding a weight does to the output grows with the size of the feature that it multiplies. So
each input is divided, and its weights are multiplied, by scales that grow with the features' mean
size; how much they grow is searched for each input, and the division is folded into what computes
it. Then the range of each group of weights is searched. A block's inputs come from the rounded
blocks before it; within a block they are those of its float layers, as in the authors' code.

Source:
    Lin et al., AWQ: Activation-aware Weight Quantization for LLM Compression and Acceleration,
    2023: section 3.2, equations 4 and 5 (scales); section 5.1 (clipping).
    torchao 0.18 has a prototype (torchao/prototype/awq), for weights alone: it folds nothing, but
    multiplies inputs by scales at run time, searches each layer by itself, and clips nothing.
    Nothing is taken from it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from quantship.frozen import Frozen
from quantship.quant.scheme import Scheme

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from quantship.algorithms.block import Block, FindGrid
    from quantship.algorithms.inputs import Inputs
    from quantship.quant.numerics import Grid
    from quantship.quant.scheme import WeightFormat

NEEDS_DATA = True


class Options(Frozen):
    """AWQ: scales up the input features that matter before rounding, and folds the scales away."""

    kind: Literal["awq"] = "awq"
    grid_points: Annotated[int, Field(ge=1)] = 20
    """Exponents tried between 0 and 1 for the scales."""
    clip: bool = True
    """Search for the range of each group that makes the least error in the layer's output."""
    rounding: Literal["nearest", "gptq"] = "nearest"
    """How the scaled weights are rounded."""


def reject(scheme: Scheme, options: Options) -> str | None:
    """Why a scheme cannot be quantized so, or None where it can: every format can."""
    return None


def quantize(block: Block, options: Options, find_grid: FindGrid) -> list[str]:
    """Settle every layer of a block; returns what a reader of the report should know."""
    from quantship.algorithms import folds, inputs, scales
    from quantship.quant.layers import is_linear

    remarks: list[str] = []
    groups = [[name for name in names if is_linear(block.layer(name))] for names in block.groups()]
    groups = [names for names in groups if names]
    for name in sorted(block.formats.keys() - {name for names in groups for name in names}):
        block.settle(name, find_grid(block.weight(name), block.formats[name].weight))
        remarks.append(f"{name} is no linear layer and was rounded to nearest")
    seen = inputs.gather(block, [names[0] for names in groups])
    remarks += inputs.remarks(seen)
    by_layer = {name: seen[names[0]] for names in groups for name in names}
    found = folds.find(block)
    for fold in found:
        one = by_layer[fold.layers[0]]
        candidates = (
            scales.centred(one.mean_I.pow(step / options.grid_points), one.mean_I > 0)
            for step in range(1, options.grid_points + 1)
        )
        scale_I = scales.best_of(block, fold, one, candidates, find_grid)
        folds.apply(block, fold, scale_I)
        by_layer |= {name: by_layer[name].divided(scale_I) for name in fold.layers}
    left = by_layer.keys() - {name for fold in found for name in fold.layers}
    if left:
        what = "clipped only" if options.clip else "not scaled"
        remarks.append(f"{', '.join(sorted(left))}: nothing before takes up scales; {what}")
    for names in groups:
        remarks += _settle(block, names, by_layer, options, find_grid)
    return remarks


def _settle(
    block: Block,
    names: Sequence[str],
    inputs: dict[str, Inputs],
    options: Options,
    find_grid: FindGrid,
) -> list[str]:
    """Clip and round layers that share an input; returns remarks."""
    from quantship.algorithms import gptq

    if options.rounding == "gptq" and not options.clip:
        return gptq.settle(block, names, gptq.Options(grid="range"), find_grid)
    grids = {name: _grid(block, name, inputs[name], options, find_grid) for name in names}
    if options.rounding == "gptq":
        by_memory = {block.weight(name).data_ptr(): grid for name, grid in grids.items()}

        def found(weight_OI: Tensor, fmt: WeightFormat) -> Grid:
            return by_memory[weight_OI.data_ptr()]

        return gptq.settle(block, names, gptq.Options(grid="range"), found)
    for name, grid in grids.items():
        block.settle(name, grid)
    return []


def _grid(block: Block, name: str, inputs: Inputs, options: Options, find_grid: FindGrid) -> Grid:
    from quantship.algorithms.clipping import searched_grid

    weight_OI, format = block.weight(name), block.formats[name]
    grid = find_grid(weight_OI, format.weight)
    if not options.clip:
        return grid
    return searched_grid(weight_OI, inputs.rounded(format.activation), format.weight, grid)
