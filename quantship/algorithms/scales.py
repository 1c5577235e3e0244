"""Which of several scales for a layer's input make the least error in what it computes.

Shapes: O out features, I in features, T tokens.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from quantship.algorithms import folds
from quantship.quant import numerics

if TYPE_CHECKING:
    from quantship.algorithms.block import Block, FindGrid
    from quantship.algorithms.folds import Fold
    from quantship.algorithms.inputs import Inputs


@torch.no_grad()
def best_of(
    block: Block,
    fold: Fold,
    inputs: Inputs,
    candidates: Iterable[Tensor],
    find_grid: FindGrid,
) -> Tensor:
    """The scales (I) with which rounding harms the output of a fold's layers the least.

    Weights and inputs are rounded as the layers' formats say, and compared with the float layers
    on the sample. Scales of 1 are always a candidate.

    Args:
        block: The block, not scaled yet.
        fold: Where the scales are to move.
        inputs: Of the fold's layers.
        candidates: Positive scales.
        find_grid: The step's range.
    """
    wanted = {name: inputs.tokens_TI @ block.weight(name).T for name in fold.layers}
    best_I = torch.ones_like(inputs.mean_I)
    least = _error(block, inputs, best_I, wanted, find_grid)
    for candidate_I in candidates:
        scale_I = folds.tied(fold, candidate_I)
        error = _error(block, inputs, scale_I, wanted, find_grid)
        if error < least:  # NaN is not
            best_I, least = scale_I, error
    return best_I


def centred(scale_I: Tensor, alive_I: Tensor) -> Tensor:
    """Scales about 1, as far above it as below; 1 for dead features, and none is extreme."""
    scale_I = scale_I.where(alive_I & scale_I.isfinite() & (scale_I > 0), 1)
    centre = (scale_I[alive_I].amax() * scale_I[alive_I].amin()).sqrt() if alive_I.any() else 1.0
    return (scale_I / centre).where(alive_I, 1).clamp(1 / LARGEST, LARGEST)


LARGEST = 1e4
"""Scales beyond which a folded norm would come near the ends of what floats hold."""


def _error(
    block: Block,
    inputs: Inputs,
    scale_I: Tensor,
    wanted: dict[str, Tensor],
    find_grid: FindGrid,
) -> float:
    """Squared error of the outputs when inputs are divided and weights multiplied by scales."""
    divided = inputs.divided(scale_I)
    rounded = {}
    error = 0.0
    for name, wanted_TO in wanted.items():
        format = block.formats[name]
        if format.activation not in rounded:
            rounded[format.activation] = divided.rounded(format.activation)
        scaled_OI = block.weight(name) * scale_I
        grid = find_grid(scaled_OI, format.weight)
        weight_OI = numerics.fake_quantize_on(scaled_OI, grid, format.weight)
        output_TO = rounded[format.activation] @ weight_OI.T
        error += float(output_TO.sub_(wanted_TO).square_().sum())
    return error
