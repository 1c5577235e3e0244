"""The little that the lowerings need of onnxruntime-genai's model builder.

The builder walks a Hugging Face decoder and emits one node after the other by name. ``Graph``
narrows it to what a lowering may do: add an initializer, add a node, name a result's shape.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import onnx_ir as ir

Form = Literal["nbits", "integer"]


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
        quantized_inputs: Results of quantizing a layer's input, by input, so that layers that
            share an input share the work.
    """

    builder: Any
    places: dict[str, Place] = field(default_factory=dict)
    quantized_inputs: dict[str, tuple[str, str, str]] = field(default_factory=dict)

    def initializer(self, name: str, array: np.ndarray) -> str:
        """Add a constant tensor that is stored in the model's file; return its name."""
        self.builder.make_initializer(np.ascontiguousarray(array), name)
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

    def declare(self, output: str, width: int, seq_dim: str | int) -> None:
        """State that ``output`` is float of shape (batch, sequence, width)."""
        shape = self.builder.make_hidden_state_shape(seq_dim=seq_dim, last_dim=width)
        self.builder.make_value(output, ir.DataType.FLOAT, shape=shape)
