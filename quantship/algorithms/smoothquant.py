"""SmoothQuant: move outliers from activations into weights, through what computes them.

Inputs whose features differ widely in size lose most of them to one scale. Each feature is divided
by s = max|x|^a / max|w|^(1 - a), its column of the weight multiplied, and the division folded into
what computes the input: into norms, as in the paper, and into earlier layers too. In SmolLM2 the
inputs that static ranges break are those of ``down_proj``, where one feature of the first token is
in the thousands; they come from ``up_proj``, so norms alone mend little of the loss.

Source:
    Xiao et al., SmoothQuant: Accurate and Efficient Post-Training Quantization for Large Language
    Models, 2022: section 4, equation 4. The search for the strength is not theirs.
    torchao 0.18 has a prototype (torchao/prototype/smoothquant): it folds nothing, but keeps the
    scales beside each weight (``act_pre_scale``) and multiplies inputs at run time, for which
    ``IntxUnpackedToInt8Tensor`` has no place. Nothing is taken from it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from quantship.frozen import Frozen
from quantship.quant.scheme import Scheme

if TYPE_CHECKING:
    from torch import Tensor

    from quantship.algorithms.block import Block, FindGrid
    from quantship.algorithms.folds import Fold
    from quantship.algorithms.inputs import Inputs

NEEDS_DATA = True
STRENGTHS = tuple(step / 10 for step in range(1, 11))
"""Strengths that are tried for each input."""


class Options(Frozen):
    """SmoothQuant: moves outliers from activations into weights, through what computes them."""

    kind: Literal["smoothquant"] = "smoothquant"
    strength: Annotated[float, Field(ge=0, le=1)] | Literal["searched"] = 0.5
    """Share of the outliers that moves: the paper's alpha. ``searched``: for each input, the one
    that makes the least error in what the layers make of it. That is better on data like the
    calibration's, and with static ranges worse on other data, whose outliers it leaves no room."""
    rounding: Literal["nearest", "gptq"] = "nearest"
    """How the weights are rounded afterwards."""


def reject(scheme: Scheme, options: Options) -> str | None:
    """Why a scheme cannot be quantized so, or None where it can."""
    if scheme.activation is None and all(one.activation is None for one in scheme.overrides):
        return (
            f"SmoothQuant moves outliers out of activations, and scheme '{scheme.name}' leaves "
            "these in float; use awq or gptq, or a scheme that quantizes activations, as w8a8"
        )
    return None


def quantize(block: Block, options: Options, find_grid: FindGrid) -> list[str]:
    """Settle every layer of a block; returns what a reader of the report should know."""
    from quantship.algorithms import folds, gptq, inputs

    rounds = {name for name, format in block.formats.items() if format.activation is not None}
    found = [fold for fold in folds.find(block) if rounds & set(fold.layers)]
    seen = inputs.gather(block, [fold.layers[0] for fold in found])
    for fold in found:
        folds.apply(block, fold, _scales(block, fold, seen[fold.layers[0]], options, find_grid))
    remarks = inputs.remarks(seen)
    left = rounds - {name for fold in found for name in fold.layers}
    if left:
        remarks.append(f"{', '.join(sorted(left))}: nothing before takes up scales; not smoothed")
    if options.rounding == "gptq":
        return remarks + gptq.quantize(block, gptq.Options(), find_grid)
    for name, format in block.formats.items():
        block.settle(name, find_grid(block.weight(name), format.weight))
    return remarks


def _scales(
    block: Block, fold: Fold, inputs: Inputs, options: Options, find_grid: FindGrid
) -> Tensor:
    """What to divide an input by, feature by feature."""
    import torch

    from quantship.algorithms import folds, scales

    weight_I = torch.stack([block.weight(name).abs().amax(dim=0) for name in fold.layers]).amax(0)
    input_I = inputs.reach_I
    alive_I = (input_I > 0) & (weight_I > 0)

    def moving(strength: float) -> Tensor:
        scale_I = input_I.pow(strength) / weight_I.pow(1 - strength)
        return scales.centred(scale_I, alive_I)

    if options.strength == "searched":
        candidates = (moving(strength) for strength in STRENGTHS)
        return scales.best_of(block, fold, inputs, candidates, find_grid)
    return folds.tied(fold, moving(options.strength))
