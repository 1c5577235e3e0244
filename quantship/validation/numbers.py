"""Stored numbers against stored numbers, to the bit, and the name of the first that differs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from safetensors import safe_open

from quantship.exporters import codes
from quantship.exporters.codes import Matrix
from quantship.exporters.graph import Place
from quantship.progress import track
from quantship.quant.tensors import StoredCodes
from quantship.validation.report import Difference, Numbers, Part
from quantship.validation.subjects import Subject

Array = NDArray[Any]


class Pair(NamedTuple):
    """The same numbers of both models, where rows and columns mean the same."""

    part: Part
    a: Array
    b: Array


def compare_codes(a: Subject, b: Subject, what: str) -> Numbers:
    """Compare codes, scales, zero points and static input ranges of all quantized matrices.

    Args:
        a: A model with codes.
        b: Another one.
        what: Whose numbers these are, in words.
    """
    names = sorted(_names(a) | _names(b))
    different: list[Difference] = []
    unreadable: list[str] = []
    for name in track(names, "comparing codes", len(names)):
        ours, theirs = _matrices(a, name), _matrices(b, name)
        missing = [side.label for side, found in ((a, ours), (b, theirs)) if not found]
        if missing:
            unreadable.append(f"{name} is not in {' and '.join(missing)}")
            continue
        reading = [
            side.label
            for side, found in ((a, ours), (b, theirs))
            if any(one is None for one in found)
        ]
        if reading:
            unreadable.append(f"{' and '.join(reading)} uses {name} in another way than stored")
            continue
        for side, readings in ((a, ours), (b, theirs)):
            wrong = _wrong_sum(side, name, readings[0])
            unreadable += [] if wrong is None else [wrong]
        for one, other in _pairings(ours, theirs):
            found = _differences(name, one, other)
            if found:
                different += found
                break
    return Numbers(
        what=what, compared=len(names), different=tuple(different), unreadable=tuple(unreadable)
    )


def compare_tensors(a: Mapping[str, Any], b: Mapping[str, Any]) -> Numbers:
    """Compare what is not quantized, in two models of one kind, by name.

    Args:
        a: Tensors by name, each with a ``numpy`` method that reads it.
        b: The same of the other model; names that only one has are left out.
    """
    names = sorted(a.keys() & b.keys())
    different: list[Difference] = []
    unreadable: list[str] = []
    for name in track(names, "comparing tensors", len(names)):
        one, other = a[name].numpy(), b[name].numpy()
        if one.shape != other.shape:
            unreadable.append(f"{name} is {list(one.shape)} in A and {list(other.shape)} in B")
            continue
        found = _difference(name, Pair("tensor", one, other))
        if found is not None:
            different.append(found)
    return Numbers(
        what="tensors of the same name",
        compared=len(names),
        different=tuple(different),
        unreadable=tuple(unreadable),
    )


def plain_initializers(subject: Subject) -> dict[str, Any]:
    """Initializers of an ONNX model that belong to no quantized matrix with a name."""
    prefixes = tuple(
        f"{place['codes'].removesuffix('.codes')}."
        for place in subject.described.get("places", {}).values()
    )
    return {
        name: value.const_value
        for name, value in subject.model.graph.initializers.items()
        if value.const_value is not None and not name.startswith(prefixes or ("\0",))
    }


def plain_tensors(subject: Subject) -> dict[str, Any]:
    """Tensors of a checkpoint that are no part of a quantized matrix."""
    found: dict[str, Any] = {}
    for path in sorted(subject.path.glob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            names: list[str] = list(file.keys())
        found.update({name: _Lazy(path, name) for name in names if "._weight_" not in name})
    return found


class _Lazy(NamedTuple):
    path: Any
    name: str

    def numpy(self) -> Array:
        with safe_open(self.path, framework="pt") as file:
            tensor = file.get_tensor(self.name)
        widened = tensor.float() if tensor.is_floating_point() else tensor
        array: Array = widened.numpy()
        return array


def _names(subject: Subject) -> set[str]:
    return set(subject.stored or subject.described.get("places", {}))


def _matrices(subject: Subject, name: str) -> list[Matrix | None]:
    """A matrix as each of its users reads it; empty where it is missing."""
    if subject.kind == "torchao":
        return [_as_matrix(subject.stored[name])] if name in subject.stored else []
    place = subject.described["places"].get(name)
    if place is None:
        return []
    return codes.matrices(Place(**place), subject.model.graph)


def _wrong_sum(subject: Subject, name: str, matrix: Matrix | None) -> str | None:
    """Which row's stored sum of codes is not the sum of its codes, if the model stores sums."""
    if subject.kind != "onnx" or matrix is None:
        return None
    place = Place(**subject.described["places"][name])
    stored = subject.model.graph.initializers.get(f"{place.codes.removesuffix('.codes')}.sums")
    if stored is None or stored.const_value is None or matrix.zero_OG.shape[1] != 1:
        return None
    found = stored.const_value.numpy().reshape(-1)[slice(*place.rows)]
    expected = (matrix.codes_OI.astype(np.int64) - matrix.zero_OG).sum(axis=1)
    wrong = np.flatnonzero(found != expected)
    if not len(wrong):
        return None
    row = int(wrong[0])
    return (
        f"{name}: sum of codes, row {row}: {subject.label} stores {found[row]:g}, and its codes "
        f"make {expected[row]}"
    )


def _as_matrix(part: StoredCodes) -> Matrix:
    codes_OI, scale_OG, zero_OG = part.codes
    scales = scale_OG.float().numpy()
    zeros = np.zeros(scales.shape, np.int16) if zero_OG is None else zero_OG.numpy()
    grid = None
    if part.input_grid is not None:
        scale, zero = part.input_grid
        grid = (float(scale), 0.0 if zero is None else float(zero))
    return Matrix(codes_OI.numpy(), scales, zeros, grid)


def _pairings(
    ours: list[Matrix | None], theirs: list[Matrix | None]
) -> Iterator[tuple[Matrix, Matrix]]:
    """Every reading of one against a reading of the other."""
    for index in range(max(len(ours), len(theirs))):
        one, other = ours[min(index, len(ours) - 1)], theirs[min(index, len(theirs) - 1)]
        assert one is not None
        assert other is not None
        yield one, other


def _differences(name: str, one: Matrix, other: Matrix) -> list[Difference]:
    if one.codes_OI.shape != other.codes_OI.shape:
        return [_whole(name, "codes", one.codes_OI, other.codes_OI)]
    pairs = [
        Pair("codes", one.codes_OI.astype(np.int16), other.codes_OI.astype(np.int16)),
        Pair("scales", *_aligned(one.scale_OG, other.scale_OG)),
        Pair("zero points", *_aligned(one.zero_OG, other.zero_OG)),
    ]
    if one.input_grid is not None and other.input_grid is not None:
        for part, index in (("input scale", 0), ("input zero point", 1)):
            numbers = [np.array(grid[index]) for grid in (one.input_grid, other.input_grid)]
            pairs.append(Pair(part, *numbers))  # type: ignore[arg-type]
    found = (_difference(name, pair) for pair in pairs)
    return [difference for difference in found if difference is not None]


def _aligned(one: Array, other: Array) -> tuple[Array, Array]:
    """Scales or zero points for the same rows and blocks, where one stands for several."""
    shape = tuple(max(sizes) for sizes in zip(one.shape, other.shape, strict=True))
    return _spread(one, shape), _spread(other, shape)


def _spread(numbers: Array, shape: tuple[int, ...]) -> Array:
    for axis, size in enumerate(shape):
        if size % numbers.shape[axis] == 0:
            numbers = np.repeat(numbers, size // numbers.shape[axis], axis=axis)
    return numbers


def _difference(name: str, pair: Pair) -> Difference | None:
    part, one, other = pair
    if one.shape != other.shape:
        return _whole(name, part, one, other)
    unequal = one != other
    if one.dtype.kind == "f" and other.dtype.kind == "f":
        unequal &= ~(np.isnan(one) & np.isnan(other))
    count = int(unequal.sum())
    if not count:
        return None
    flat = int(unequal.argmax())
    index = tuple(int(at) for at in np.unravel_index(flat, unequal.shape))
    return Difference(
        name=name, part=part, index=index, a=float(one[index]), b=float(other[index]), count=count
    )


def _whole(name: str, part: Part, one: Array, other: Array) -> Difference:
    """All of a tensor differs: its shape does."""
    return Difference(
        name=name, part=part, index=(), a=None, b=None, count=max(one.size, other.size)
    )
