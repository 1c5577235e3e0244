"""GPTQ: round column by column, and let the columns to come make up for the error.

Source:
    Frantar et al., GPTQ: Accurate Post-Training Quantization for Generative Pre-trained
    Transformers, 2022: section 3.3 and Algorithm 1; act-order with static groups is of its authors'
    code, https://github.com/IST-DASLab/gptq. Each layer sees what the layers rounded before it
    leave, as there with true-sequential. torchao 0.18 has a prototype
    (torchao/prototype/gptq/api.py), which cannot serve: it asserts that weights are on CUDA, its
    int4 needs the kernels of mslk, it has no act-order, and it makes none of the tensors that
    checkpoints are made of here, other than the 8-bit one.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from quantship.errors import QuantshipError
from quantship.frozen import Frozen
from quantship.quant.scheme import Scheme

if TYPE_CHECKING:
    from torch import Tensor

    from quantship.algorithms.block import Block, FindGrid
    from quantship.quant.numerics import Grid

NEEDS_DATA = True


class Options(Frozen):
    """GPTQ: rounds column by column, and lets the columns to come make up for the error."""

    kind: Literal["gptq"] = "gptq"
    damping: float = Field(default=0.1, gt=0, lt=1)
    """Added to the Hessian's diagonal, as a share of its mean. Less of it fits the calibration
    data better, more of it serves other data; raised tenfold, up to 1, where a Hessian needs it."""
    act_order: bool = True
    """Round the columns whose inputs are largest first; groups stay where they are."""
    grid: Literal["searched", "range"] = "searched"
    """How far grids reach. ``searched``: as far as makes the least error in the layer's output on
    the calibration data, and the step's ``range`` is for embedding and head alone; ``range``: as
    the step's ``range`` says."""


def reject(scheme: Scheme, options: Options) -> str | None:
    """Why a scheme cannot be quantized so, or None where it can: every format can."""
    return None


def quantize(block: Block, options: Options, find_grid: FindGrid) -> list[str]:
    """Settle every layer of a block; returns what a reader of the report should know."""
    remarks: list[str] = []
    for names in block.groups():
        remarks += settle(block, names, options, find_grid)
    return remarks


def settle(block: Block, names: Sequence[str], options: Options, find_grid: FindGrid) -> list[str]:
    """Round layers that share an input, their weights as they stand, and settle them.

    Args:
        block: The block.
        names: One of ``block.groups()``.
        options: How.
        find_grid: The step's range, for ``grid: range`` and for layers that GPTQ cannot round.

    Returns:
        Remarks for the report, on layers that were rounded in another way than was asked for.

    Raises:
        QuantshipError: The inputs are not finite.
    """
    from quantship.quant.layers import is_linear

    remarks: list[str] = []
    for name in (name for name in names if not is_linear(block.layer(name))):
        block.settle(name, find_grid(block.weight(name), block.formats[name].weight))
        remarks.append(f"{name} is no linear layer and was rounded to nearest")
    linear = [name for name in names if is_linear(block.layer(name))]
    # Layers of one input have one Hessian, unless some of them see it rounded.
    for _, alike in groupby(
        sorted(linear, key=lambda name: repr(block.formats[name].activation)),
        key=lambda name: block.formats[name].activation,
    ):
        remarks += _settle_linear(block, tuple(alike), options, find_grid)
    return remarks


def _settle_linear(
    block: Block, names: tuple[str, ...], options: Options, find_grid: FindGrid
) -> list[str]:
    import torch

    from quantship.algorithms import compensation

    hessian_II, num_tokens = compensation.hessian(block.inputs(names[0]))
    squares_I = hessian_II.diagonal().clone()
    if not bool(squares_I.isfinite().all()):
        raise QuantshipError(
            f"the inputs of {names[0]} are not finite, or too large to be squared, on the "
            "calibration data; GPTQ cannot round it"
        )
    mean = squares_I.mean()
    searched_I = squares_I + options.damping * mean if mean > 0 else torch.ones_like(squares_I)

    def grid_of(name: str) -> Grid:
        weight_OI, fmt = block.weight(name), block.formats[name].weight
        if options.grid == "range":
            return find_grid(weight_OI, fmt)
        return compensation.weighted_grid(weight_OI, searched_I, fmt)

    grids = {name: grid_of(name) for name in names}
    # Columns are rounded from the end of this order.
    order_I = torch.arange(len(squares_I) - 1, -1, -1, device=squares_I.device)
    if options.act_order:
        order_I = torch.argsort(squares_I, stable=True)
    hessian_II = hessian_II[order_I.unsqueeze(1), order_I]
    factor_II, damping = compensation.factor(hessian_II, options.damping)
    del hessian_II
    remarks = _remarks(names, squares_I, num_tokens, options.damping, damping, factor_II is None)
    if factor_II is None:
        for name, grid in grids.items():
            block.settle(name, grid)
        return remarks
    for _, alike in groupby(
        sorted(names, key=lambda name: repr(block.formats[name].weight)),
        key=lambda name: block.formats[name].weight,
    ):
        _round(block, {name: grids[name] for name in alike}, factor_II, order_I)
    return remarks


def _round(block: Block, grids: dict[str, Grid], factor_II: Tensor, order_I: Tensor) -> None:
    """Round layers of one format in one go, as rows of one matrix, and settle them."""
    import torch

    from quantship.algorithms import compensation
    from quantship.quant.numerics import Grid

    fmt = block.formats[next(iter(grids))].weight
    weights = [block.weight(name) for name in grids]
    sizes = [weight_OI.shape[0] for weight_OI in weights]
    scales = [grid.scale.expand(size, -1) for grid, size in zip(grids.values(), sizes, strict=True)]
    zeros = [
        grid.zero.expand(size, -1)
        for grid, size in zip(grids.values(), sizes, strict=True)
        if grid.zero is not None
    ]
    group_size = fmt.group_size or len(order_I)
    number_IO = compensation.round_columns(
        torch.cat([weight_OI.T[order_I] for weight_OI in weights], dim=1),
        factor_II,
        Grid(torch.cat(scales), torch.cat(zeros) if zeros else None),
        [column // group_size for column in order_I.tolist()],
        fmt,
    )
    numbers_IO = torch.empty_like(number_IO)
    numbers_IO[order_I] = number_IO
    for (name, grid), number in zip(grids.items(), numbers_IO.split(sizes, dim=1), strict=True):
        block.settle(name, grid, number.T)


def _remarks(
    names: tuple[str, ...],
    squares_I: Tensor,
    num_tokens: int,
    wanted: float,
    damping: float,
    fell_back: bool,
) -> list[str]:
    """What was not as it should be with the Hessian of some layers."""
    layers, num_in = ", ".join(names), len(squares_I)
    dead = int((squares_I == 0).sum())
    if dead == num_in:
        return [f"{layers}: all inputs are zero on the calibration data; rounded to nearest"]
    remarks = []
    if fell_back:
        remarks.append(
            f"{layers}: the Hessian is not positive definite even at damping 1; rounded to nearest"
        )
    elif damping > wanted:
        remarks.append(
            f"{layers}: the Hessian is not positive definite at damping {wanted:g}; "
            f"raised to {damping:g}"
        )
    if dead:
        remarks.append(
            f"{layers}: {dead} of {num_in} inputs are zero on the calibration data; their weights "
            "are rounded to nearest"
        )
    if num_tokens < num_in:
        remarks.append(f"{layers}: {num_tokens} calibration tokens for {num_in} inputs")
    return remarks
