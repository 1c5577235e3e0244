"""Tables of cosines and sines out of a few frequencies, when the model is loaded.

A table has a row for each position that the model knows: those of a model that knows 131,072 take
34 MB of a file that may have 600 MB in all. onnxruntime computes them once, as it loads the model.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx_ir as ir
import torch

COSINES, SINES = "cos_cache", "sin_cache"
"""How the names of tables begin."""


def compute_tables(graph: ir.Graph, model: Any) -> None:
    """Put nodes in place of the tables that the frequencies of a model's rotation make to the bit.

    Args:
        graph: A decoder's graph, which is changed.
        model: The model, whose rotary embedding may lack its numbers.
    """
    rotation = getattr(getattr(model, "base_model", None), "rotary_emb", None)
    known = [] if rotation is None else list(_frequencies(type(rotation)(model.config)))
    for name, value in list(graph.initializers.items()):
        if not name.startswith((COSINES, SINES)) or value.const_value is None:
            continue
        table = torch.from_numpy(value.const_value.numpy())
        op = "Cos" if name.startswith(COSINES) else "Sin"
        for frequencies, factor in known:
            if torch.equal(_table(op, len(table), frequencies, factor), table):
                _replace(graph, value, op, frequencies, factor)
                break


def _frequencies(rotation: Any) -> Iterator[tuple[torch.Tensor, float]]:
    """Inverse frequencies of a rotation and what its tables are multiplied by."""
    for name, numbers in rotation.named_buffers():
        if name.endswith("inv_freq") and "original" not in name:
            kind = name.removesuffix("inv_freq")
            yield numbers, float(getattr(rotation, f"{kind}attention_scaling"))


def _table(op: str, length: int, frequencies: torch.Tensor, factor: float) -> torch.Tensor:
    angles = torch.arange(length).float()[:, None] * frequencies[None]
    return (angles.cos() if op == "Cos" else angles.sin()) * factor


def _replace(
    graph: ir.Graph, table: ir.Value, op: str, frequencies: torch.Tensor, factor: float
) -> None:
    length = table.const_value.shape[0]  # type: ignore[union-attr]
    name = f"{table.name}/"

    def number(part: str, array: np.ndarray) -> ir.Value:
        value = ir.Value(name=name + part, const_value=ir.tensor(array, name=name + part))
        value.shape, value.dtype = ir.Shape(array.shape), ir.DataType.from_numpy(array.dtype)
        graph.register_initializer(value)
        return value

    def node(op: str, *inputs: ir.Value) -> ir.Value:
        made = ir.node(op, list(inputs), name=name + op)
        graph.append(made)
        made.outputs[0].name = name + op
        return made.outputs[0]

    ends = [np.array(at, np.float32) for at in (0, length, 1)]
    positions = node("Range", *(number(f"range{i}", end) for i, end in enumerate(ends)))
    column = node("Unsqueeze", positions, number("axis", np.array([1], np.int64)))
    angles = node("Mul", column, number("frequencies", frequencies.numpy()[None]))
    made = node(op, angles)
    if factor != 1:
        factored = ir.node("Mul", [made, number("factor", np.array(factor, np.float32))])
        factored.outputs[0].name = name + "factored"
        graph.append(factored)
        made = factored.outputs[0]
    ir.convenience.replace_all_uses_with(table, made)
    del graph.initializers[str(table.name)]
    graph.sort()
