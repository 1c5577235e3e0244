"""Where a block lets scales move from the inputs of layers into what computes them.

A layer that multiplies x by W computes the same from x / s and W * s, if what makes x can be made
to give x / s: a norm with a weight of its own, or an earlier linear layer whose output reaches the
layer without anything but weighted sums and products with other numbers in between (values through
attention, one half of a gated MLP through the other). Nothing here knows an architecture. What
could be a fold is found by watching a call, and each is proven by trying: what makes x is divided
by random powers of two, its readers' inputs are multiplied by them, and the block's output has to
stay as it is. Powers of two round nothing, so the output of a true fold stays to the last bits.

Shapes: O out features, I in features, T tokens.

Source:
    Xiao et al., SmoothQuant, 2022, section 4 (into norms); Lin et al., AWQ, 2023, section 4 (into
    norms and earlier layers). torchao's prototypes of both (0.18) fold nothing: they keep the
    scales beside the weight (``act_pre_scale``) and multiply each input by them at run time,
    for which ``IntxUnpackedToInt8Tensor`` has no place, and no export has.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from quantship.algorithms.watching import Seen, changed, input_of, output_of, watch
from quantship.quant.layers import is_linear, matrix

if TYPE_CHECKING:
    from quantship.algorithms.block import Block

SAME = 1e-5
"""Relative error up to which two results are one."""
LINEAR = 1e-4
"""Relative error up to which an input counts as a multiple of what it was."""

NEAREST = 8
"""Earlier linear layers that are tried for an input, the last ones before it."""

Kind = Literal["weight", "one_plus_weight", "rows"]
"""What is divided: a norm's weight; that of a norm which multiplies by one plus it; rows of a
linear layer's weight. A bias always goes along."""


@dataclass(frozen=True, eq=False)
class Fold:
    """Scales that can move from the input of some layers into what computes it.

    Args:
        source: Name in the block of the norm or linear layer that computes the input.
        kind: What of it is divided.
        readers: Names in the block of all layers that read the input, rounded or not.
        layers: Names in the model of those that are quantized.
        row_I: Output feature of the source that each input feature comes from; -1 where it cannot
            be told, because the feature is zero throughout: it is not scaled.
    """

    source: str
    kind: Kind
    readers: tuple[str, ...]
    layers: tuple[str, ...]
    row_I: Tensor


def find(block: Block) -> list[Fold]:
    """All places of a block where scales can move, in the order in which their layers run.

    Needs float layers: to be asked before any is settled. One call is looked at.
    """
    if not block.calls or not block.formats:
        return []
    with torch.no_grad():
        seen = watch(block)
        found = [_fold_of(block, seen, readers) for readers in seen.groups]
    return [fold for fold in found if fold is not None]


def tied(fold: Fold, scale_I: Tensor) -> Tensor:
    """Scales that the fold can move: input features which come from one row get their mean.

    The mean is the geometric one; what cannot be told gets 1. Grouped-query heads share rows.
    """
    known_I = fold.row_I >= 0
    rows, feature_I = fold.row_I[known_I].unique(return_inverse=True)
    log_I = scale_I[known_I].log()
    sums = log_I.new_zeros(len(rows)).index_add_(0, feature_I, log_I)
    counts = torch.bincount(feature_I, minlength=len(rows))
    result_I = torch.ones_like(scale_I)
    result_I[known_I] = (sums / counts).exp()[feature_I]
    return result_I


def apply(block: Block, fold: Fold, scale_I: Tensor) -> None:
    """Multiply the readers' weights by scales, and divide what computes their input.

    Args:
        block: The block, whose output stays what it is but for rounding.
        fold: One of ``find``'s.
        scale_I: Positive scales, as ``tied`` makes them.
    """
    with torch.no_grad():
        for name in fold.readers:
            matrix(block.module.get_submodule(name)).mul_(scale_I)
        _divide(block.module.get_submodule(fold.source), fold.kind, _by_row(block, fold, scale_I))


def _by_row(block: Block, fold: Fold, scale_I: Tensor) -> Tensor:
    """Scales of the source's output features; 1 for those that reach no reader."""
    source = block.module.get_submodule(fold.source)
    known_I = fold.row_I >= 0
    scale_O = scale_I.new_ones(_width(source))
    scale_O[fold.row_I[known_I]] = scale_I[known_I]
    return scale_O


def _divide(source: nn.Module, kind: Kind, scale_O: Tensor) -> None:
    weight: Any = source.weight
    if kind == "rows":
        matrix(source).div_(scale_O.unsqueeze(-1))
    elif kind == "weight":
        weight.div_(scale_O)
    else:
        weight.add_(1).div_(scale_O).sub_(1)
    bias: Any = getattr(source, "bias", None)
    if bias is not None:
        bias.div_(scale_O)


def _fold_of(block: Block, seen: Seen, readers: tuple[str, ...]) -> Fold | None:
    """The fold in front of the readers of one input, where there is one."""
    layers = tuple(name for name in block.formats if _local(block, name) in readers)
    if not layers or any(_is_shared(block, name) for name in readers):
        return None
    norm = seen.norms.get(readers[0])
    into = _into_rows if norm is None else _into_norm
    for source in seen.before(readers[0])[:NEAREST] if norm is None else [norm]:
        if _is_shared(block, source):
            continue
        found = into(block, seen, source, readers, layers)
        if found is not None and _is_proven(block, seen, found):
            return found
    return None


def _into_norm(
    block: Block, seen: Seen, source: str, readers: tuple[str, ...], layers: tuple[str, ...]
) -> Fold | None:
    module = block.module.get_submodule(source)
    row_I = torch.arange(_width(module), device=seen.inputs[readers[0]].device)
    kind = _kind_of(module, seen.calls[source])
    return None if kind is None else Fold(source, kind, readers, layers, row_I)


def _kind_of(norm: nn.Module, call: tuple[tuple[Any, ...], Mapping[str, Any]]) -> Kind | None:
    """How the weight of a norm multiplies, found by dividing it and looking at the output."""
    before = norm(*call[0], **call[1])
    scale_O = _powers_of_two(_width(norm), before.device)
    kept = {name: parameter.clone() for name, parameter in norm.named_parameters()}
    kinds: tuple[Kind, ...] = ("weight", "one_plus_weight")
    for kind in kinds:
        _divide(norm, kind, scale_O)
        after = norm(*call[0], **call[1])
        for name, parameter in norm.named_parameters():
            parameter.copy_(kept[name])
        if bool(torch.isfinite(before).all()) and _difference(after * scale_O, before) < SAME:
            return kind
    return None


def _into_rows(
    block: Block, seen: Seen, source: str, readers: tuple[str, ...], layers: tuple[str, ...]
) -> Fold | None:
    """A fold into rows of a linear layer: which, is read off the reader's input.

    Each row's output is multiplied by a number of its own; a feature that comes from one row alone
    is then that number times what it was. In a layer that makes several things at once, as
    queries, keys and values, the last ones are meant.
    """
    num_out = _width(block.module.get_submodule(source))
    before = seen.inputs[readers[0]]
    for num_rows in _tails(num_out, before.shape[-1]):
        factor_O = _numbered(num_out, num_rows).to(before.device)
        after = input_of(block, readers[0], {source: factor_O.mul})
        row_I = None if after is None else _rows_of(before, after, factor_O)
        if row_I is not None:
            return Fold(source, "rows", readers, layers, row_I)
    return None


def _numbered(num_out: int, num_rows: int) -> Tensor:
    """A factor of its own, none near 1, for each of the last rows; 1 for the others."""
    factor_O = torch.ones(num_out)
    generator = torch.Generator().manual_seed(0)
    exponents = torch.linspace(0.5, 1.5, num_rows, dtype=torch.float64)
    factor_O[num_out - num_rows :] = exponents.exp2()[torch.randperm(num_rows, generator=generator)]
    return factor_O


def _tails(num_out: int, num_in: int) -> Iterator[int]:
    """How many of the last rows of a layer may make an input, grouped-query heads included."""
    if num_out <= num_in:
        if num_out > 1 and num_in % num_out == 0:
            yield num_out
        return
    if num_in > 1:
        yield num_in
    # Queries as wide as the input; keys and values share the rest.
    num_values, rest = divmod(num_out - num_in, 2)
    if num_values > 1 and not rest and num_in % num_values == 0 and num_values != num_in:
        yield num_values


def _rows_of(before: Tensor, after: Tensor, factor_O: Tensor) -> Tensor | None:
    """The row that each input feature is a multiple of; None if one is a multiple of none."""
    if before.shape != after.shape or not bool(torch.isfinite(before).all()):
        return None
    before_TI = before.reshape(-1, before.shape[-1]).double()
    after_TI = after.reshape(before_TI.shape).double()
    square_I = before_TI.square().sum(dim=0)
    alive_I = square_I > 0
    ratio_I = (before_TI * after_TI).sum(dim=0) / square_I.where(alive_I, 1)
    error_I = (after_TI - before_TI * ratio_I).square().sum(dim=0)
    if bool((error_I > LINEAR**2 * square_I).any()):
        return None
    sorted_O, row_O = factor_O.double().sort()
    above_I = torch.searchsorted(sorted_O, ratio_I).clamp(1, len(sorted_O) - 1)
    nearer_I = (sorted_O[above_I] - ratio_I) < (ratio_I - sorted_O[above_I - 1])
    place_I = torch.where(nearer_I, above_I, above_I - 1)
    # Half of what lies between two factors: what is farther off is no multiple of a row.
    between = torch.log(sorted_O[-1] / sorted_O[-2]) / 2
    far_I = (sorted_O[place_I] / ratio_I.where(alive_I, 1)).log().abs() > between
    row_I = row_O[place_I]
    if bool(((far_I | (factor_O[row_I] == 1)) & alive_I).any()) or not bool(alive_I.any()):
        return None
    return row_I.where(alive_I, -1)


def _is_proven(block: Block, seen: Seen, fold: Fold) -> bool:
    """Whether the block's output stays as it is when the fold moves random scales."""
    scale_I = tied(fold, _powers_of_two(len(fold.row_I), fold.row_I.device))
    scale_O = _by_row(block, fold, scale_I)
    inputs = dict.fromkeys(fold.readers, scale_I.mul)
    with changed(block, {fold.source: (1 / scale_O).mul}, inputs):
        output = output_of(block)
    made = seen.output - seen.hidden if seen.output.shape == seen.hidden.shape else seen.output
    # Beside a large residual, what the block adds to it would not show.
    return bool(made.any()) and _difference(output, seen.output, made) < SAME


def _difference(one: Tensor, other: Tensor, scale: Tensor | None = None) -> float:
    """Norm of a difference over that of the numbers; NaN is larger than anything."""
    size = (other if scale is None else scale).double().norm()
    apart = (one.double() - other.double()).norm()
    relative = float(apart / size) if float(size) else float(apart)
    return relative if relative == relative else float("inf")


def _powers_of_two(count: int, device: torch.device) -> Tensor:
    exponents = torch.randint(-2, 3, (count,), generator=torch.Generator().manual_seed(1))
    return torch.pow(2.0, exponents).to(device)


def _width(module: nn.Module) -> int:
    """Output features of a norm or of a linear layer."""
    if is_linear(module):
        return matrix(module).shape[0]
    weight = module.weight
    assert isinstance(weight, Tensor)
    return weight.shape[0]


def _local(block: Block, name: str) -> str:
    return name.removeprefix(f"{block.name}.") if block.name else name


def _is_shared(block: Block, name: str) -> bool:
    """Whether a module, or a parameter of it, is used under another name as well."""
    mine = {id(one) for one in block.module.get_submodule(name).parameters()}
    owners = [
        other
        for other, module in block.module.named_modules(remove_duplicate=False)
        if mine & {id(one) for one in module.parameters(recurse=False)}
    ]
    return owners != [name]
