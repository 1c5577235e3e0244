"""The little that the lowerings need of onnxruntime-genai's model builder.

The builder walks a Hugging Face decoder and emits one node after the other by name. ``Graph``
narrows it to what a lowering may do: add an initializer, add a node, name a result's shape.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import onnx_ir as ir

from quantship.exporters.lowering import Form


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


@dataclass
class Graph:
    """A decoder graph under construction.

    Args:
        builder: onnxruntime-genai's ``Model``, in the middle of ``make_model``.
        places: Where each quantized matrix went; filled by the lowerings.
        quantized_inputs: Results of quantizing a layer's input, by input and how that was done, so
            that layers that share an input share the work.
        arithmetic: How layers treat their inputs when the model runs, and how many do so.
    """

    builder: Any
    places: dict[str, Place] = field(default_factory=dict)
    quantized_inputs: dict[object, Any] = field(default_factory=dict)
    arithmetic: Counter[str] = field(default_factory=Counter)

    def initializer(self, name: str, array: np.ndarray) -> str:
        """Add a constant tensor that is stored in the model's file; return its name."""
        self.builder.make_initializer(np.asarray(array, order="C"), name)
        return name

    def constant(self, dtype: Literal["FLOAT", "INT64", "UINT8"], value: Any) -> str:
        """Name of a small constant that is shared by all its users."""
        return f"/model/constants/{dtype}/{value}"

    def node(
        self, op: str, inputs: list[str], output: str, domain: str = "", **attributes: Any
    ) -> str:
        """Add a node with one output, named like its output; return the output's name."""
        self.builder.make_node(op, inputs, [output], name=output, domain=domain, **attributes)
        return output

    def describe_arithmetic(self) -> str:
        """What layers do to their inputs when the model runs, what most do first."""
        if len(self.arithmetic) < 2:
            return next(iter(self.arithmetic), "float32")
        total = self.arithmetic.total()
        counted = self.arithmetic.most_common()
        return "; ".join(f"{how} ({count} of {total} layers)" for how, count in counted)

    def declare(self, output: str, width: int, seq_dim: str | int) -> None:
        """State that ``output`` is float of shape (batch, sequence, width)."""
        shape = self.builder.make_hidden_state_shape(seq_dim=seq_dim, last_dim=width)
        self.builder.make_value(output, ir.DataType.FLOAT, shape=shape)
