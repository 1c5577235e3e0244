"""Drawing on a graph of onnx-ir that exists already: what takes the place of a traced layer."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx_ir as ir

from quantship.exporters.graph import ConstantType

OPERATORS = "com.microsoft"
"""Domain of onnxruntime's own operators, whose only version is 1."""


@dataclass
class IrDrawing:
    """Draws in front of one node of a graph, and of another one after ``move_to``.

    Names say what a value is, so whatever has been drawn is not drawn again: a layer that is used
    twice has its codes once.

    Args:
        graph: The graph.
        values: Everything in it, by name.
        before: Node in front of which to draw.
    """

    graph: ir.Graph
    values: dict[str, ir.Value] = field(default_factory=dict)
    before: ir.Node | None = None

    def __post_init__(self) -> None:
        self.values.update(self.graph.initializers)
        for value in (*self.graph.inputs, *(out for node in self.graph for out in node.outputs)):
            if not value.name:  # an optional output that nobody wants
                continue
            assert value.name not in self.values
            self.values[value.name] = value

    def move_to(self, node: ir.Node) -> None:
        """Draw in front of this node from now on."""
        self.before = node

    def initializer(self, name: str, array: np.ndarray) -> None:
        """See ``Drawing.initializer``."""
        known = self.values.get(name)
        if known is not None:
            assert known.const_value is not None
            assert tuple(known.const_value.shape) == array.shape
            return
        tensor = ir.tensor(array, name=name)
        value = ir.Value(name=name, shape=ir.Shape(array.shape), type=ir.TensorType(tensor.dtype))
        value.const_value = tensor
        self.graph.register_initializer(value)
        self.values[name] = value

    def constant(self, dtype: ConstantType, value: Any) -> str:
        """See ``Drawing.constant``."""
        name = f"constants/{dtype}/{value}"
        self.initializer(name, np.array(value, ir.DataType[dtype].numpy()))
        return name

    def node(
        self, op: str, inputs: list[str], output: str, domain: str, attributes: dict[str, Any]
    ) -> None:
        """See ``Drawing.node``."""
        if output in self.values:
            known = self.values[output].producer()
            assert known is not None
            assert known.op_type == op
            return
        assert self.before is not None
        made = ir.node(
            op,
            [self.values[name] for name in inputs],
            {
                name: int(one) if isinstance(one, ir.DataType) else one
                for name, one in attributes.items()
            },
            domain=domain,
            outputs=[ir.Value(name=output)],
            name=output,
        )
        self.graph.insert_before(self.before, made)
        self.values[output] = made.outputs[0]
        if domain:
            self.graph.opset_imports[domain] = 1

    def declare(self, output: str, width: int, seq_dim: str | int) -> None:
        """See ``Drawing.declare``; whoever replaces a node knows more of its shape."""

    def replace(self, node: ir.Node, output: str) -> None:
        """Let ``output`` stand for the only output of a node, which goes."""
        old, new = node.outputs[0], self.values[output]
        new.shape, new.type = old.shape, old.type
        name = old.name
        ir.convenience.replace_all_uses_with(old, new, replace_graph_outputs=True)
        self.graph.remove(node, safe=True)
        assert name is not None
        del self.values[name]
        if new.is_graph_output():
            del self.values[output]
            new.name = name
            self.values[name] = new
