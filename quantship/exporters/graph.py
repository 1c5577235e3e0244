"""The little that the lowerings need to draw a graph: an initializer, a node, a result's shape.

Lowerings emit one node after the other by name, and do not know what draws them.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
import onnx_ir as ir

from quantship.exporters.lowering import Form
from quantship.exporters.targets import Target
from quantship.quant.tensors import StoredCodes

DOMAIN = "com.microsoft"
"""Of onnxruntime's own operators."""
ConstantType = Literal["FLOAT", "INT64", "INT32", "UINT8", "INT8"]


@dataclass(frozen=True)
class Place:
    """Where the codes of one quantized matrix lie in an ONNX model.

    Args:
        form: How they are laid out.
        codes: Name of the initializer with the codes.
        scales: Name of the initializer with the scales.
        rows: First row and the row after the last, where several matrices share an initializer.
        in_features: Width of the matrix, without padding.
        container_bits: Bits that one code takes in the file.
    """

    form: Form
    codes: str
    scales: str
    rows: tuple[int, int]
    in_features: int
    container_bits: int


class Layer(NamedTuple):
    """What a MatMulNBits node multiplies by."""

    name: str
    """What the names of its initializers begin with."""
    parts: list[StoredCodes]
    """Matrices, one below the other."""

    @property
    def num_out(self) -> int:
        """Output features of all parts."""
        return sum(part.codes.codes_OI.shape[0] for part in self.parts)


class Drawing(Protocol):
    """What draws: onnxruntime-genai's builder behind ``BuilderDrawing``, or a graph of onnx-ir."""

    def initializer(self, name: str, array: np.ndarray) -> None:
        """Add a constant tensor that is stored in the model's file."""
        ...

    def constant(self, dtype: ConstantType, value: Any) -> str:
        """Name of a small constant that is shared by all its users."""
        ...

    def node(
        self, op: str, inputs: list[str], output: str, domain: str, attributes: dict[str, Any]
    ) -> None:
        """Add a node with one output, named like its output."""
        ...

    def declare(self, output: str, width: int, seq_dim: str | int) -> None:
        """State that ``output`` is float of shape (batch, sequence, width)."""
        ...


@dataclass
class Graph:
    """A graph under construction, as the lowerings see it.

    Args:
        drawing: What draws it; a decoder's comes with its builder, when that begins.
        target: Machine that the graph is for.
        places: Where each quantized matrix went; filled by the lowerings.
        quantized_inputs: Results of quantizing a layer's input, by input and how that was done, so
            that layers that share an input share the work.
        arithmetic: How layers treat their inputs when the model runs, and how many do so.
        prompt_arithmetic: The same for prompts, where they have a branch of their own.
        layers: What each MatMulNBits node multiplies by, by the node's name.
        signed_weights: Whether signed bytes of weights meet unsigned ones of inputs anywhere.
    """

    target: Target
    prefers_speed: bool = False
    drawing: Drawing | None = None
    places: dict[str, Place] = field(default_factory=dict)
    quantized_inputs: dict[object, Any] = field(default_factory=dict)
    arithmetic: Counter[str] = field(default_factory=Counter)
    prompt_arithmetic: Counter[str] = field(default_factory=Counter)
    layers: dict[str, Layer] = field(default_factory=dict)
    signed_weights: bool = False

    def initializer(self, name: str, array: np.ndarray) -> str:
        """Add a constant tensor that is stored in the model's file; return its name."""
        self._drawing.initializer(name, np.asarray(array, order="C"))
        return name

    def constant(self, dtype: ConstantType, value: Any) -> str:
        """Name of a small constant that is shared by all its users."""
        return self._drawing.constant(dtype, value)

    def node(
        self, op: str, inputs: list[str], output: str, domain: str = "", **attributes: Any
    ) -> str:
        """Add a node with one output, named like its output; return the output's name."""
        self._drawing.node(op, inputs, output, domain, attributes)
        return output

    def declare(self, output: str, width: int, seq_dim: str | int) -> None:
        """State that ``output`` is float of shape (batch, sequence, width)."""
        self._drawing.declare(output, width, seq_dim)

    def describe_arithmetic(self) -> str:
        """What layers do to their inputs when the model runs, what most do first."""
        if not self.prompt_arithmetic:
            return _counted(self.arithmetic)
        prompt, token = map(_counted, (self.prompt_arithmetic, self.arithmetic))
        return f"prompts: {prompt}; token after token: {token}"

    @property
    def _drawing(self) -> Drawing:
        assert self.drawing is not None
        return self.drawing


def _counted(arithmetic: Counter[str]) -> str:
    if len(arithmetic) < 2:
        return next(iter(arithmetic), "float32")
    counted, total = arithmetic.most_common(), arithmetic.total()
    return "; ".join(f"{how} ({count} of {total} layers)" for how, count in counted)


@dataclass(frozen=True)
class BuilderDrawing:
    """Draws through onnxruntime-genai's ``Model``, in the middle of ``make_model``."""

    builder: Any

    def initializer(self, name: str, array: np.ndarray) -> None:
        """See ``Drawing.initializer``."""
        self.builder.make_initializer(array, name)

    def constant(self, dtype: ConstantType, value: Any) -> str:
        """See ``Drawing.constant``: the builder makes what such a name says."""
        return f"/model/constants/{dtype}/{value}"

    def node(
        self, op: str, inputs: list[str], output: str, domain: str, attributes: dict[str, Any]
    ) -> None:
        """See ``Drawing.node``."""
        self.builder.make_node(op, inputs, [output], name=output, domain=domain, **attributes)

    def declare(self, output: str, width: int, seq_dim: str | int) -> None:
        """See ``Drawing.declare``."""
        shape = self.builder.make_hidden_state_shape(seq_dim=seq_dim, last_dim=width)
        self.builder.make_value(output, ir.DataType.FLOAT, shape=shape)
