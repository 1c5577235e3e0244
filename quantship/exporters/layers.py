"""What becomes of one quantized layer in a graph, whatever draws the rest of it."""

from __future__ import annotations

from quantship.errors import QuantshipError
from quantship.exporters import integer, nbits, qdq
from quantship.exporters.graph import Graph
from quantship.exporters.lowering import Form, Lowering, arithmetic, form_of
from quantship.quant.tensors import StoredCodes


def form_for(lowering: Lowering, part: StoredCodes) -> Form:
    """The form of a layer.

    Raises:
        QuantshipError: The layer has a static input range, which the form would not use.
    """
    form = form_of(lowering, part.activation, grouped=part.codes.scale_OG.shape[1] > 1)
    if form == "nbits" and part.input_grid is not None:
        raise QuantshipError(
            f"the layer '{part.name}' was trained with a static input range, which the "
            f"lowering '{lowering}' would not use; use integer or qdq"
        )
    return form


def matmul(
    graph: Graph,
    lowering: Lowering,
    parts: list[StoredCodes],
    name: str,
    input: str,
    output: str,
) -> None:
    """Multiply ``input`` by the rows of all ``parts``, of one form, and note how that is done."""
    form, part = form_for(lowering, parts[0]), parts[0]
    multiply = {"integer": integer.matmul, "nbits": nbits.matmul, "qdq": qdq.matmul}[form]
    multiply(graph, parts, name, input, output)
    grouped = part.codes.scale_OG.shape[1] > 1
    graph.arithmetic[arithmetic(form, part.activation, grouped=grouped)] += len(parts)


def embedding(
    graph: Graph,
    lowering: Lowering,
    part: StoredCodes,
    name: str,
    ids: str,
    *,
    shared: str | None = None,
) -> str:
    """Look up rows of a matrix for ids of shape (batch, sequence); return the result's name.

    Args:
        graph: The graph under construction.
        lowering: Form of the model's layers.
        part: The matrix.
        name: Of the embedding.
        ids: Name of the ids.
        shared: Name of the layer that stores the matrix, where it is tied to one.
    """
    if lowering == "qdq":
        held = qdq.names(part, shared) if shared else qdq.store(graph, [part], name)
        return qdq.embedding(graph, part, held, name, ids)
    stored = nbits.names(graph, part, shared) if shared else nbits.store(graph, [part], name)
    return nbits.embedding(graph, part, stored, name, ids)
