"""The tensors of a part: layers as torchao's, whatever else a block has in float32."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from quantship.algorithms.block import Block, FindGrid
from quantship.blocks import ends
from quantship.blocks.mapped import give_back_heap
from quantship.blocks.parts import CodesDigest, Part, Parts, digest_of
from quantship.quant import numerics
from quantship.quant.checkpoint import flatten, kept_metadata, read_codes
from quantship.quant.container import Spec, Writer, spec_of
from quantship.quant.layers import is_transposed, matrix
from quantship.quant.numerics import Codes, Grid
from quantship.quant.rounding_error import RoundingError
from quantship.quant.scheme import LayerFormat, WeightFormat
from quantship.quant.tensors import encode


def save_block(
    parts: Parts, key: str, block: Block, names: Sequence[str], notes: list[str], *, packed: bool
) -> Part:
    """Write a block whose layers are settled.

    Args:
        parts: Where to.
        key: Key of the part.
        block: The block.
        names: Its tensors, by their names in the model's state.
        notes: Remarks of the algorithm.
        packed: See ``checkpoint.save``.
    """
    prefix = f"{block.name}." if block.name else ""
    held, settled = block.module.state_dict(), block.settled()
    grids = {name: _input_grid(layer) for name, layer in settled.items()}
    assert settled.keys() == block.formats.keys(), "the algorithm has left a layer in float"

    def tensor(name: str) -> Tensor:
        found: Tensor = held[name.removeprefix(prefix)]
        return found

    def encoded(name: str, codes: Codes) -> Tensor:
        return encode(
            codes,
            block.formats[name],
            grids[name],
            packed=packed,
            transposed=is_transposed(settled[name]),
        )

    listed: dict[str, Tensor] = {}
    for name in names:
        module = name.removesuffix(".weight")
        if module in settled:
            shape, fmt = matrix(settled[module]).shape, block.formats[module].weight
            listed[name] = encoded(module, _blank(shape, fmt))
        else:
            listed[name] = tensor(name)
    flat, metadata = flatten(listed)
    transposed = [name for name, layer in settled.items() if is_transposed(layer)]

    def fill(file: Writer) -> dict[str, str]:
        digests = {}
        for name in names:
            module = name.removesuffix(".weight")
            if module not in settled:
                file.put(name, tensor(name))
                continue
            layer = settled[module]
            codes = layer.rounding.codes(matrix(layer).detach())
            digests[module] = digest_of(codes)
            made = {name: encoded(module, ends.moved(codes, "cpu"))}
            for part, value in flatten(made)[0].items():
                file.put(part, value)
            del codes, made
            give_back_heap()
        return digests

    specs = {name: spec_of(value) for name, value in flat.items()}
    kept = metadata | kept_metadata(transposed)
    corrected = tuple(block.corrected)
    return parts.write(
        key,
        specs,
        kept,
        fill,
        notes=tuple(notes),
        corrected=corrected,
        errors=lambda: block.errors,
    )


def save_end(
    parts: Parts,
    name: str,
    weight_OI: Tensor,
    format: LayerFormat | None,
    find_grid: FindGrid,
    *,
    packed: bool,
) -> Part:
    """Round the token embedding or the output head to nearest, or leave it in float, and write it.

    A few rows are in float32 at a time, but where one scale is shared by the whole matrix.

    Args:
        parts: Where to; the key is ``name``.
        name: Of the module.
        weight_OI: Its weight, of any float dtype.
        format: Its format; None: float.
        find_grid: How far grids reach.
        packed: See ``checkpoint.save``.
    """
    tensor_name, shape = f"{name}.weight", weight_OI.shape
    error = RoundingError()

    def encoded(codes: Codes) -> Mapping[str, Tensor]:
        assert format is not None
        made = encode(codes, format, None, packed=packed, transposed=False)
        return flatten({tensor_name: made})[0]

    def fill(file: Writer) -> dict[str, str]:
        sums, gathered = CodesDigest(), dict[str, list[Tensor]]()
        whole = format is not None and format.weight.granularity == "per_tensor"
        for rows in [slice(0, shape[0])] if whole else ends.chunks(*shape):
            numbers_OI = weight_OI[rows].float()
            if format is None:
                file.put(tensor_name, numbers_OI, rows.start * shape[1] * 4)
                continue
            codes = numerics.round_to(
                numbers_OI, find_grid(numbers_OI, format.weight), format.weight
            )
            sums.add(codes)
            error.add(numbers_OI, numerics.dequantize(codes, numbers_OI.dtype))
            for part, value in encoded(codes).items():
                _put_rows(file, part, value, specs[part], rows.start, gathered)
            give_back_heap()
        for part, values in gathered.items():
            file.put(part, torch.cat(values, dim=1))
        return {} if format is None else {name: sums.hexdigest()}

    listed = torch.empty(shape, device="meta")
    if format is not None:
        blank = _blank(shape, format.weight)
        listed = encode(blank, format, None, packed=packed, transposed=False)
    flat, metadata = flatten({tensor_name: listed})
    specs = {part: spec_of(value) for part, value in flat.items()}
    errors = {} if format is None else {name: error}
    return parts.write(
        name,
        specs,
        metadata | kept_metadata([]),
        fill,
        errors=lambda: {key: one.relative for key, one in errors.items()},
    )


def restore(block: Block, part: Part, names: Sequence[str]) -> None:
    """Give a block all that its part holds, in place: as it was when the part was written."""
    from safetensors import safe_open

    prefix = f"{block.name}." if block.name else ""
    for stored in read_codes(part.path):
        block.restore(stored)
        give_back_heap()
    held = block.module.state_dict(keep_vars=True)
    with safe_open(part.path, framework="pt") as file:
        for name in names:
            if name.removesuffix(".weight") not in block.formats:
                held[name.removeprefix(prefix)].data.copy_(file.get_tensor(name))


def end_of(part: Part, original: nn.Module, format: LayerFormat | None, *, tied: bool) -> Any:
    """The module that computes with an end's part, whose bytes stay in the file.

    Args:
        part: Of the embedding or the head.
        original: The embedding or the head that is wanted.
        format: Of the part; None: float.
        tied: ``original`` is a head, and the part is the embedding's.
    """
    from safetensors import safe_open

    is_head = tied or isinstance(original, nn.Linear)
    if format is None:
        with safe_open(part.path, framework="pt") as file:
            weight_OI = file.get_tensor(*file.keys())
        rows, product = ends.float_rows(weight_OI), ends.float_product(weight_OI)
    else:
        (stored,) = read_codes(part.path)
        rows, product = ends.code_rows(stored.codes), ends.code_product(stored.codes, format)
    return ends.Head(original, product) if is_head else ends.Embedding(original, rows)  # type: ignore[arg-type]


def _put_rows(
    file: Writer,
    name: str,
    value: Tensor,
    spec: Spec,
    first_row: int,
    gathered: dict[str, list[Tensor]],
) -> None:
    """Write some rows of a tensor, or keep them where the file has them side by side."""
    if tuple(value.shape) == spec.shape:
        file.put(name, value)
    elif value.shape[0] != spec.shape[0]:
        row_bytes = value[0].numel() * value.element_size()
        file.put(name, value, first_row * row_bytes)
    else:
        gathered.setdefault(name, []).append(value)


def _blank(shape: torch.Size, fmt: WeightFormat) -> Codes:
    """Codes of this shape, without their numbers."""
    row = numerics.choose_grid(torch.zeros(1, shape[1]), fmt)
    num_rows = 1 if fmt.granularity == "per_tensor" else shape[0]

    def blank(dtype: torch.dtype, *size: int) -> Tensor:
        return torch.empty(size, dtype=dtype, device="meta")

    zero_OG = None if row.zero is None else blank(torch.int8, num_rows, row.scale.shape[1])
    scale_OG = blank(row.scale.dtype, num_rows, row.scale.shape[1])
    return Codes(blank(torch.int8, *shape), scale_OG, zero_OG)


def _input_grid(layer: nn.Module) -> Grid | None:
    rounding = getattr(layer, "input_rounding", None)
    grid: Grid | None = None if rounding is None else rounding.static_grid()
    if grid is None:
        return None
    return Grid(grid.scale.cpu(), None if grid.zero is None else grid.zero.cpu())
