"""Many layers as few rows: those that differ by a number in their name only."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from quantship.inspection.names import joined, numbered, pattern
from quantship.inspection.report import FloatTensor, Port, QuantizedTensor

Item = TypeVar("Item")
Key = TypeVar("Key", bound=Hashable)
SMALL_ROLES = {"norm": "norms", "bias": "biases", "other": "others"}
"""Roles whose parameters are one row together."""


@dataclass(frozen=True)
class Row:
    """Tensors shown as one.

    Args:
        name: Of the layers, with stars or ranges for numbers.
        detail: What they have in common.
        count: How many they are.
        num_parameters: In all of them.
        size_bytes: Of all of them.
        tensor: What the file calls it, where it is shown alone.
    """

    name: str
    detail: str
    count: int
    num_parameters: int
    size_bytes: int
    tensor: str | None = None


def quantized_rows(tensors: Sequence[QuantizedTensor], *, every: bool) -> list[Row]:
    """Quantized weights as rows.

    Args:
        tensors: All of them.
        every: One row each.
    """
    keyed = [
        ((pattern(joined(one.layers)), one.shape, _detail(one), one.tensor if every else ""), one)
        for one in tensors
    ]
    patterns = Counter(key[0] for key in dict.fromkeys(key for key, _ in keyed))
    return [
        Row(
            name=(
                numbered(joined(one.layers) for one in same)
                if len(same) == 1 or patterns[key[0]] > 1
                else key[0]
            ),
            detail=_detail(same[0]),
            count=len(same),
            num_parameters=sum(one.num_parameters for one in same),
            size_bytes=sum(one.size_bytes for one in same),
            tensor=same[0].tensor if every else None,
        )
        for key, same in _grouped(keyed)
    ]


def float_rows(tensors: Sequence[FloatTensor], *, every: bool) -> list[Row]:
    """Parameters in float as rows; vectors of norms and biases together.

    Args:
        tensors: All of them.
        every: One row each.
    """
    keyed: list[tuple[tuple[str, ...], FloatTensor]] = []
    for one in tensors:
        name = SMALL_ROLES.get(one.role, pattern(one.layer))
        keyed.append(((one.name,) if every else (name, one.dtype, one.reason), one))
    return [
        Row(
            name=same[0].layer if len(same) == 1 else key[0],
            detail=f"{same[0].dtype} · {same[0].reason}",
            count=len(same),
            num_parameters=sum(one.num_parameters for one in same),
            size_bytes=sum(one.size_bytes for one in same),
        )
        for key, same in _grouped(keyed)
    ]


def port_rows(ports: Sequence[Port], *, every: bool) -> list[tuple[str, str, str]]:
    """Inputs or outputs as names, types and shapes; those of many layers together."""
    keyed = [
        ((one.name if every else pattern(one.name), one.dtype, _shape(one)), one) for one in ports
    ]
    return [
        (same[0].name if len(same) == 1 else f"{key[0]} ({len(same)})", key[1], key[2])
        for key, same in _grouped(keyed)
    ]


def _grouped(
    keyed: Iterable[tuple[Hashable, Item]],
) -> Iterable[tuple[tuple[str, ...], list[Item]]]:
    groups: dict[Hashable, list[Item]] = {}
    for key, one in keyed:
        groups.setdefault(key, []).append(one)
    return groups.items()  # type: ignore[return-value]


def _detail(one: QuantizedTensor) -> str:
    operators = list(dict.fromkeys(use.operator for use in one.uses))
    runs = [name for name in one.runs_as if name not in operators]
    ran = f", here {' and '.join(runs)}" if runs else ""
    read = f"{' and '.join(operators)}{ran}"
    inputs = dict.fromkeys(use.activation for use in one.uses if use.does != "looks up")
    given = f"inputs {' / '.join(name for name in inputs if name)}" if any(inputs) else ""
    return " · ".join(part for part in (one.format, read, given) if part)


def _shape(port: Port) -> str:
    if port.shape is None:
        return "any shape"
    return f"({', '.join('?' if size is None else str(size) for size in port.shape)})"
