"""The reader of standard operators notices nodes that make something else of the right numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from quantship.exporters import qdq
from quantship.quant.scheme import ActivationFormat, WeightFormat

Change = Callable[[ir.Graph], None]
GROUPED = WeightFormat(bits=4, group_size=16, symmetric=False)
ASYMMETRIC = WeightFormat(bits=8, symmetric=False)
TOKENS = ActivationFormat()
STATIC = ActivationFormat(granularity="per_tensor", ranges="static")


def node_of(graph: ir.Graph, output: str) -> ir.Node:
    (found,) = [node for node in graph if str(node.outputs[0].name).endswith(output)]
    return found


def edit(name: str, index: int = 0) -> Change:
    """Change one number of a constant by the least that there is."""

    def change(graph: ir.Graph) -> None:
        value = graph.initializers[name]
        assert value.const_value is not None
        array = value.const_value.numpy().copy()
        array.view(f"u{array.itemsize}").reshape(-1)[index] ^= 1
        value.const_value = ir.tensor(array, name=name)

    return change


def attribute(output: str, name: str, number: int) -> Change:
    def change(graph: ir.Graph) -> None:
        node_of(graph, output).attributes[name] = ir.AttrInt64(name, number)

    return change


def input_of(output: str, index: int, array: Any) -> Change:
    """Feed a node with another constant; with what is given, the number in its place."""

    def change(graph: ir.Graph) -> None:
        value = ir.val("other", const_value=ir.tensor(array, name="other"))
        graph.register_initializer(value)
        node_of(graph, output).replace_input_with(index, value)

    return change


def without(output: str, index: int) -> Change:
    return lambda graph: node_of(graph, output).replace_input_with(index, None)


def bypass(output: str) -> Change:
    """Use what goes into a node instead of what comes out."""

    def change(graph: ir.Graph) -> None:
        node = node_of(graph, output)
        given = node.inputs[0]
        assert given is not None
        for user, index in list(node.outputs[0].uses()):
            user.replace_input_with(index, given)

    return change


@pytest.mark.parametrize(
    ("weight", "activation", "changes"),
    [
        (
            GROUPED,
            None,
            [
                *(edit(f"layer.{what}", 7) for what in ("codes", "scales", "zeros")),
                attribute("layer/weight", "axis", 1),
                attribute("layer/weight", "block_size", 8),
                attribute("layer/weight", "block_size", 32),
                without("layer/weight", 2),
                bypass("layer/weight"),
            ],
        ),
        (
            ASYMMETRIC,
            None,
            [
                *(edit(f"layer.{what}", 7) for what in ("codes", "scales", "zeros")),
                attribute("layer/weight", "axis", 0),
                without("layer/weight", 2),
            ],
        ),
        (
            ASYMMETRIC,
            STATIC,
            [
                *(edit(f"layer.{what}", 7) for what in ("codes", "scales", "zeros")),
                edit("layer.input_scale"),
                input_of("/codes", 1, np.array(0.5, np.float32)),
                input_of("/floats", 1, np.array(0.5, np.float32)),
                input_of("/codes", 2, np.array(1, np.uint8)),
                input_of("/floats", 2, np.array(1, np.uint8)),
                bypass("/floats"),
                lambda graph: node_of(graph, "y").replace_input_with(0, graph.inputs[0]),
            ],
        ),
        (
            ASYMMETRIC,
            TOKENS,
            [
                *(edit(f"layer.{what}", 7) for what in ("codes", "scales", "zeros", "sums")),
                input_of("/whole", 1, np.array(2, np.float32)),
                input_of("/whole", 2, np.array(1, np.uint8)),
            ],
        ),
    ],
    ids=["grouped", "by row", "static", "tokens"],
)
@pytest.mark.parametrize("target", ["portable", "x86-vnni"])
def test_a_layer_that_is_changed_is_not_the_checkpoints(
    part: Any,
    multiplied: Any,
    weight: WeightFormat,
    activation: ActivationFormat | None,
    changes: list[Change],
    target: str,
) -> None:
    one = part(weight, activation, shape=(96, 96))  # whichever axis
    assert multiplied(one, target=target).give("y").holds(one)
    for change in changes:
        drawn = multiplied(one, target=target).give("y")
        change(drawn.model.graph)
        assert not drawn.holds(one)


@pytest.mark.parametrize("weight", [GROUPED, ASYMMETRIC], ids=["grouped", "by row"])
def test_an_embedding_that_is_changed_is_not_the_checkpoints(
    part: Any, empty: Any, weight: WeightFormat
) -> None:
    one = part(weight, shape=(96, 96), name="table")
    blocks = [0, 0, 6, 16]
    changes = [
        *(edit(f"table.{what}", 7) for what in ("codes", "scales", "zeros")),
        *(attribute(f"{what}/found", "axis", 1) for what in ("codes", "scales", "zeros")),
        bypass("table/centred"),
        bypass("codes/turned"),
        input_of("scales/found", 1, np.zeros((1, 1), np.int64)),
        input_of("zeros/found", 1, np.zeros((1, 1), np.int64)),
    ]
    if weight.group_size is not None:
        changes += [
            input_of("codes/blocks", 1, np.array(blocks[:2] + blocks[:1:-1])),
            input_of("scales/blocks", 1, np.array([0, 0, 1, 6])),
            bypass("zeros/blocks"),
        ]

    def drawn() -> Any:
        found = empty()
        stored = qdq.store(found.graph, [one], "table")
        return found.give(qdq.embedding(found.graph, one, stored, "table", "ids"))

    assert drawn().holds(one)
    for change in changes:
        changed = drawn()
        change(changed.model.graph)
        assert not changed.holds(one)
