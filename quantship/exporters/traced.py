"""Any module to ONNX: encoders, classifiers, decoders that the model builder does not know.

PyTorch traces the module with boxes in place of its quantized layers, transformers' exporter makes
a graph of the trace, and the lowerings put the codes where the boxes are.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import logging
import re
import traceback
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx_ir as ir

from quantship.artifact import Facts
from quantship.errors import QuantshipError
from quantship.exporters import convolution, hybrid, layers, opaque, past
from quantship.exporters.clients import DATA_FILE
from quantship.exporters.drawing import IrDrawing
from quantship.exporters.examples import SEQUENCE, Axes, Example
from quantship.exporters.graph import Graph
from quantship.exporters.hooks import METADATA
from quantship.exporters.lowering import Lowering
from quantship.exporters.opaque import Boxed
from quantship.exporters.targets import Target
from quantship.scrubbing import scrub

if TYPE_CHECKING:
    from torch import nn

MODEL_FILE = "model.onnx"
OPSET = 21
"""The first with blocks in DequantizeLinear; onnxruntime has it since 1.18."""
TALKATIVE = ("torch", "transformers", "onnxscript")
"""Libraries that write to the screen while they trace."""
EMBEDDED_BYTES = 64 << 20
"""Larger models keep their numbers in a file of their own; ONNX files end at 2 GiB."""


def export(
    boxed: Boxed,
    example: Example,
    lowering: Lowering,
    target: Target,
    metadata: dict[str, Any],
    out: Path,
) -> Facts:
    """Write ``model.onnx``, where it is large with its numbers beside it, into ``out``.

    Args:
        boxed: The module.
        example: What to trace it with.
        lowering: Form of the quantized layers; ``float`` for a float module.
        target: Machine that the model is for.
        metadata: JSON values to store in the model beside the places of its codes.
        out: Existing directory.

    Raises:
        QuantshipError: PyTorch cannot trace the module, or a layer does not fit the lowering.
    """
    return finish(trace(boxed.module, example, out), boxed, lowering, target, metadata, out)


def trace(module: nn.Module, example: Example, out: Path) -> ir.Model:
    """The graph of a module, with a symbolic operator for each box in it.

    Args:
        module: As ``opaque.box`` makes it.
        example: What to trace it with.
        out: Existing directory for ``export.log``, what the exporters have to say.

    Raises:
        QuantshipError: PyTorch cannot trace the module.
    """
    from transformers.exporters.configs import OnnxConfig
    from transformers.exporters.exporter_onnx import OnnxExporter

    log = io.StringIO()
    try:
        with quiet(log):
            made = OnnxExporter().export(
                module,  # type: ignore[arg-type]
                dict(example.inputs),
                OnnxConfig(dynamic_shapes=dynamic_shapes(example), opset_version=OPSET),
            )
    except Exception as error:  # torch.export raises errors of dozens of classes
        log.write(traceback.format_exc())
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise QuantshipError(
            f"PyTorch cannot trace a {type(module).__name__}: {reason}; "
            f"{out / 'export.log'} has more"
        ) from error
    finally:
        (out / "export.log").write_text(scrub(log.getvalue()))
    model: ir.Model = made.program
    _name(model.graph, example.axes)
    return model


def finish(
    model: ir.Model,
    boxed: Boxed,
    lowering: Lowering,
    target: Target,
    metadata: dict[str, Any],
    out: Path,
) -> Facts:
    """Put the codes into a graph that ``trace`` has made, and write it.

    Args:
        model: The graph; it is changed.
        boxed: What was traced.
        lowering: See ``export``.
        target: See ``export``.
        metadata: See ``export``.
        out: See ``export``.

    Raises:
        QuantshipError: A layer does not fit the lowering, or nothing uses it.
    """
    assert (lowering == "float") == (not boxed.codes)
    graph = Graph(target, prefers_speed=lowering == "hybrid")
    _lower(model, boxed, lowering, graph)
    missing = boxed.codes.keys() - graph.places.keys()
    if missing:
        raise QuantshipError(
            f"the example inputs do not reach the layers {', '.join(sorted(missing))}"
        )
    if lowering == "hybrid":
        hybrid.branch(model, graph)
    noted = {
        **metadata,
        "lowering": lowering,
        "target": target,
        "activation_arithmetic": graph.describe_arithmetic(),
        "signed_weights": graph.signed_weights,
    }
    places = {name: dataclasses.asdict(at) for name, at in graph.places.items()}
    model.metadata_props[METADATA] = json.dumps({**noted, "places": places})
    _save(model, out)
    return {
        **noted,
        "architecture": type(boxed.module).__name__,
        "opset": model.opset_imports[""],
        "num_quantized": len(graph.places),
    }


def dynamic_shapes(example: Example) -> dict[str, Any]:
    """Which axes vary, in the words of torch.export."""
    from torch.export import Dim

    shapes: dict[str, Any] = {}
    for name, value in example.inputs.items():
        varying = dict.fromkeys(example.axes.get(name, {}), Dim.DYNAMIC)
        if name == "past_key_values":
            shapes[name] = [varying] * (2 * len(value.layers))
        elif name != "use_cache":
            shapes[name] = varying
    return shapes


def _name(graph: ir.Graph, axes: Axes) -> None:
    """Give inputs, outputs and varying axes the names that runtimes know."""
    for value in (*graph.inputs, *graph.outputs):
        value.name = past.runtime_name(value.name or "")
    names: dict[str, str] = {}
    for value in graph.inputs:
        cached = (value.name or "").startswith("past_key_values.")
        for axis, name in axes.get("past_key_values" if cached else value.name or "", {}).items():
            assert value.shape is not None
            names.setdefault(str(value.shape[axis]), name)
    for value in (*graph.inputs, *graph.outputs, *(one for node in graph for one in node.outputs)):
        if value.shape is not None:
            value.shape = ir.Shape([_dimension(one, names) for one in value.shape])


def _dimension(size: Any, names: dict[str, str]) -> int | str:
    if isinstance(size, int):
        return size
    words = re.sub(r"\w+", lambda found: names.get(found[0], found[0]), str(size))
    both = {f"{past.PAST} + {SEQUENCE}", f"{SEQUENCE} + {past.PAST}"}
    if words in both:
        return past.TOTAL
    return int(words) if words.isdigit() else words


def _lower(model: ir.Model, boxed: Boxed, lowering: Lowering, graph: Graph) -> None:
    """Put codes and nodes in place of the symbolic operators."""
    drawing = IrDrawing(model.graph)
    graph.drawing = drawing
    for node in [node for node in model.graph if node.domain == opaque.DOMAIN]:
        drawing.move_to(node)
        layer = node.attributes[opaque.LAYER].as_string()
        given, result = node.inputs[0], node.outputs[0]
        assert given is not None
        assert given.name is not None
        name, part = f"/{layer.replace('.', '/')}", boxed.codes[layer]
        output = f"{name}/{result.name}"
        if node.op_type == opaque.MATRIX:
            layers.matmul(graph, lowering, [part], name, given.name, output)
        elif node.op_type == opaque.CONVOLUTION:
            convolution.convolve(graph, part, boxed.geometries[layer], name, given.name, output)
        else:
            output = layers.embedding(graph, lowering, part, name, given.name)
        drawing.replace(node, output)
    model.graph.opset_imports.pop(opaque.DOMAIN, None)


def _save(model: ir.Model, out: Path) -> None:
    size = sum(
        value.const_value.nbytes
        for value in model.graph.initializers.values()
        if value.const_value is not None
    )
    beside = DATA_FILE if size > EMBEDDED_BYTES else None
    ir.save(model, out / MODEL_FILE, external_data=beside)


@contextlib.contextmanager
def quiet(log: io.StringIO) -> Iterator[None]:
    """Send what the exporters print, warn and log into a log."""
    handler = logging.StreamHandler(log)
    known = [logging.getLogger(name) for name in logging.root.manager.loggerDict]
    talkers = [one for one in known if one.name.split(".")[0] in TALKATIVE and one.handlers]
    before = [(one, list(one.handlers)) for one in talkers]
    for one in talkers:
        one.handlers = [handler]
    try:
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(log),
            contextlib.redirect_stderr(log),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        for one, handlers in before:
            one.handlers = handlers
