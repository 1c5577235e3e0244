"""Where the scales of codes are, when the operator that reads the codes does not name them."""

from __future__ import annotations

from collections.abc import Iterator

import onnx_ir as ir

from quantship.inspection.onnx_operators import Reading
from quantship.inspection.onnx_values import Stored, input_of, producer, stored

SCALING = ("Cast", "Add", "Reshape", "Mul")
"""What may come between an integer product and its scale."""


def of_matrix(node: ir.Node, reading: Reading, codes: Stored) -> Stored | None:
    """Scales of a matrix: an input of the operator, or a factor of its product."""
    if reading.scale is not None:
        return stored(input_of(node, reading.scale))
    sizes = {1, codes.shape[-1], codes.shape[0], 2 * codes.shape[-1]}  # codes may be packed
    return _scale_after(node.outputs[0], sizes)


def _scale_after(value: ir.Value, sizes: set[int]) -> Stored | None:
    """The scales that an integer product is multiplied by, alone or together with the input's."""
    for node, _ in value.uses():
        if node.op_type not in SCALING:
            continue
        if node.op_type == "Mul":
            found = [
                factor
                for other in node.inputs
                if other is not None and other is not value
                for factor in _factors(other)
                if factor.size in sizes and not factor.is_integer
            ]
            if found:
                return max(found, key=lambda one: one.size)
        after = _scale_after(node.outputs[0], sizes)
        if after is not None:
            return after
    return None


def _factors(value: ir.Value) -> Iterator[Stored]:
    """Stored factors of a value that is stored, or the product of a few values."""
    one = stored(value)
    if one is not None:
        yield one
        return
    node = value.producer()
    if node is not None and node.op_type == "Mul":
        for other in node.inputs:
            if other is not None:
                found = stored(other)
                if found is not None:
                    yield found


def of_rows(value: ir.Value, depth: int = 6) -> Stored | None:
    """Scales whose rows are looked up beside those of the codes, and multiplied with them."""
    if depth == 0:
        return None
    for node, _ in value.uses():
        if node.op_type == "Mul":
            for other in node.inputs:
                lookup = producer(other, through=("Reshape", "Unsqueeze", "Cast"))
                if other is not value and lookup is not None and lookup.op_type == "Gather":
                    return stored(lookup.inputs[0])
        elif node.op_type in ("Cast", "Reshape", "Sub", "Unsqueeze"):
            found = of_rows(node.outputs[0], depth - 1)
            if found is not None:
                return found
    return None
