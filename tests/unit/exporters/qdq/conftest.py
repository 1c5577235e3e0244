"""Layers of standard operators, alone in a graph."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
import torch
from numpy.typing import NDArray
from onnx.reference import ReferenceEvaluator

from quantship.exporters import codes, qdq
from quantship.exporters.drawing import IrDrawing
from quantship.exporters.graph import Graph
from quantship.exporters.targets import Target
from quantship.quant import numerics
from quantship.quant.scheme import ActivationFormat, WeightFormat
from quantship.quant.tensors import StoredCodes

Array = NDArray[Any]


class Drawn:
    """A graph that multiplies ``x`` by matrices, or looks ``ids`` up in one, and nothing else."""

    def __init__(self, target: Target = "portable") -> None:
        x = ir.val("x", ir.DataType.FLOAT, ["batch", "sequence", "width"])
        ids = ir.val("ids", ir.DataType.INT64, ["batch", "sequence"])
        end = ir.node("Identity", [x], outputs=[ir.val("end")])
        graph = ir.Graph([x, ids], [], nodes=[end], opset_imports={"": 21}, name="layer")
        self.model = ir.Model(graph, ir_version=10)
        self.drawing = IrDrawing(graph, before=end)
        self.graph = Graph(target, drawing=self.drawing)
        self._end = end

    def give(self, output: str, dtype: ir.DataType = ir.DataType.FLOAT) -> Drawn:
        """Let a value be an output of the model."""
        value = self.drawing.values[output]
        value.dtype, value.shape = dtype, ir.Shape([None] * (2 if "weight" in output else 3))
        self.model.graph.outputs.append(value)
        return self

    @property
    def proto(self) -> onnx.ModelProto:
        if self._end in self.model.graph:
            self.model.graph.remove(self._end, safe=True)
            used = [value for value in self.model.graph.inputs if value.uses()]
            self.model.graph.inputs[:] = used
        return ir.to_proto(self.model)

    def run(self, **feeds: Array) -> dict[str, list[Array]]:
        """Outputs by onnx's reference evaluator, and by onnxruntime without and with fusion."""
        proto = self.proto
        found = {"reference": list(ReferenceEvaluator(proto).run(None, feeds))}
        for name, level in (
            ("plain", ort.GraphOptimizationLevel.ORT_DISABLE_ALL),
            ("fused", ort.GraphOptimizationLevel.ORT_ENABLE_ALL),
        ):
            options = ort.SessionOptions()
            options.graph_optimization_level = level
            options.intra_op_num_threads = 1
            session = ort.InferenceSession(
                proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
            )
            found[name] = list(session.run(None, feeds))
        return found

    def fused(self, path: Path) -> list[ir.Node]:
        """What onnxruntime makes of the graph."""
        options = ort.SessionOptions()
        options.optimized_model_filepath = str(path / "optimized.onnx")
        options.log_severity_level = 3  # it warns that the file suits this machine only
        ort.InferenceSession(
            self.proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        return list(ir.load(path / "optimized.onnx").graph)

    def holds(self, *parts: StoredCodes) -> bool:
        """Whether the independent reader finds the matrices."""
        read = ir.from_proto(self.proto)
        return all(codes.same(one, self.graph.places[one.name], read.graph) for one in parts)


def _part(
    weight: WeightFormat,
    activation: ActivationFormat | None = None,
    *,
    shape: tuple[int, int] = (40, 96),
    name: str = "layer",
) -> StoredCodes:
    """A matrix with outliers, a row of zeros and a lopsided one."""
    generator = torch.Generator().manual_seed(sum(shape))
    whole_OI = torch.randn(max(shape[0], 4), max(shape[1], 4), generator=generator)
    whole_OI[1] = 0
    whole_OI[2] += 3
    whole_OI[:, 3] *= 20
    weight_OI = whole_OI[: shape[0], : shape[1]].contiguous()
    rounded = numerics.round_to_nearest(weight_OI, weight)
    grid = None
    if activation is not None and activation.ranges == "static":
        bounds = torch.tensor(-2.5), torch.tensor(3.1)
        grid = numerics.input_grid(*bounds, activation)
    return StoredCodes(name, rounded, weight.bits, activation, grid)


def _multiplied(*parts: StoredCodes, target: Target = "portable") -> Drawn:
    drawn = Drawn(target)
    qdq.matmul(drawn.graph, list(parts), "layer", "x", "y")
    return drawn


@pytest.fixture(scope="session")
def part() -> Callable[..., StoredCodes]:
    """Make a matrix of a format, of an activation's format, a shape and a name."""
    return _part


@pytest.fixture(scope="session")
def empty() -> type[Drawn]:
    """Make a graph in which nothing is drawn yet, for a target."""
    return Drawn


@pytest.fixture(scope="session")
def multiplied() -> Callable[..., Drawn]:
    """Draw a layer of some matrices, for a target."""
    return _multiplied


@pytest.fixture(scope="module", autouse=True)
def _one_thread(one_thread: None) -> None:
    """Everything in this room is small."""
