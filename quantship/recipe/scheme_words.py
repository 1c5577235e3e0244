"""Schemes in words: one line a row of the table, for ``quantship explain``."""

from __future__ import annotations

from collections.abc import Iterable

from rich.table import Table
from rich.text import Text

from quantship.quant.scheme import FLOAT, ActivationFormat, Scheme, WeightFormat


def scheme_table(schemes: Iterable[Scheme]) -> Table:
    """A table of schemes: weights, inputs and embedding of each."""
    table = Table(box=None, pad_edge=False)
    for title in ("Scheme", "Weights", "Inputs of linear layers", "Embedding and head"):
        table.add_column(title)
    for scheme in schemes:
        table.add_row(
            Text(scheme.name, "cyan"),
            weight_words(scheme.weight) + (", overridden in places" if scheme.overrides else ""),
            activation_words(scheme.activation),
            " and ".join(dict.fromkeys(map(weight_words, (scheme.embedding, scheme.head_format)))),
        )
    return table


def weight_words(format: WeightFormat | None) -> str:
    """A weight's format in words: ``4 bits in groups of 32``."""
    if format is None:
        return FLOAT
    shared = {
        "per_tensor": "a scale a tensor",
        "per_channel": "a scale a channel",
        "per_group": f"groups of {format.group_size}",
    }[format.granularity]
    return f"{format.bits} bits, {shared}{'' if format.symmetric else ', asymmetric'}"


def activation_words(format: ActivationFormat | None) -> str:
    """The format of a layer's input in words: ``8 bits, a scale a token``."""
    if format is None:
        return FLOAT
    shared = format.granularity.removeprefix("per_")
    kind = "symmetric" if format.symmetric else "asymmetric"
    return f"{format.bits} bits, {format.ranges}, a scale a {shared}, {kind}"
