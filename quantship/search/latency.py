"""How long one decoded token takes in each layer and format, measured on onnxruntime.

Every shape and format runs as a model of its own, drawn by quantship's exporters: many copies of
the layer, so that most of their codes come from memory, as in a model. All take turns, and medians
count. What a model takes beyond its layers is measured on a whole model in the same turns.

That is a model of the truth, not the truth: layers that a graph joins (query, key and value of one
format) are a little faster together than alone, small models stay in caches where large ones do
not, and attention takes longer the longer a text gets. The report's benchmark measures the result.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import numpy as np
import onnx_ir as ir
import torch

from quantship import hardware, progress
from quantship.exporters import layers as drawn
from quantship.exporters.drawing import OPERATORS, IrDrawing
from quantship.exporters.graph import Graph
from quantship.exporters.lowering import Lowering
from quantship.quant.choices import Layer
from quantship.quant.numerics import Codes, code_range
from quantship.quant.scheme import LayerFormat
from quantship.quant.tensors import StoredCodes
from quantship.runtimes.base import open_runtime

COPIES_BYTES = 24 << 20
"""Bytes of codes that the copies of a layer come to, and the most copies."""
MOST_COPIES = 128
ROUNDS = 15
PROMPT, CAPACITY = 64, 64 + 2 * ROUNDS
OPSET, IR_VERSION = 21, 10


class Times(NamedTuple):
    """Milliseconds of one decoded token."""

    layers: Mapping[str, Mapping[str, float]]
    """By layer and candidate."""
    whole: float
    """Of the model that was measured whole."""


def measure(layers: Sequence[Layer], lowering: Lowering, whole: Path, vocabulary: int) -> Times:
    """Measure every layer that is chosen for in each of its formats, and a whole model.

    Args:
        layers: Of the model.
        lowering: Form that they get.
        whole: Directory of an exported model.
        vocabulary: Number of its tokens.
    """
    threads = hardware.num_threads()
    kinds = list(
        dict.fromkeys(
            (one.num_out, one.num_in, format)
            for one in layers
            if one.is_chosen and one.is_multiplied
            for format in one.formats.values()
        )
    )
    runs = [_session(*kind, lowering, threads) for kind in kinds]
    runtime = open_runtime(whole, threads)
    token = np.zeros(1, np.int64)
    prompt = np.random.default_rng(0).integers(vocabulary, size=(1, PROMPT), dtype=np.int64)
    runtime.prefill(prompt, CAPACITY)
    taken: list[list[float]] = [[] for _ in kinds]
    tokens: list[float] = []
    for _ in progress.track(range(ROUNDS), "latency", ROUNDS):
        for times, (run, copies) in zip(taken, runs, strict=True):
            times.append(_milliseconds(run) / copies)
        tokens.append(_milliseconds(lambda: runtime.decode(token)))
    alone = dict(zip(kinds, map(median, taken), strict=True))
    found = {
        one.name: {
            name: alone[one.num_out, one.num_in, format] if one.is_multiplied else 0.0
            for name, format in one.formats.items()
        }
        for one in layers
        if one.is_chosen
    }
    return Times(found, median(tokens))


def _session(
    num_out: int, num_in: int, format: LayerFormat, lowering: Lowering, threads: int
) -> tuple[Callable[[], Any], int]:
    """What runs the copies of a layer once, and how many they are."""
    import onnxruntime as ort

    copies = max(1, min(MOST_COPIES, COPIES_BYTES // (num_out * num_in)))
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = threads
    content = _model(_part(num_out, num_in, format), copies, lowering)
    session = ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    feeds = {"input": np.random.default_rng(0).standard_normal((1, 1, num_in), np.float32)}

    def run() -> Any:
        return session.run(None, feeds)

    run()
    return run, copies


def _part(num_out: int, num_in: int, format: LayerFormat) -> StoredCodes:
    fmt = format.weight
    low, high = code_range(fmt.bits)
    generator = torch.Generator().manual_seed(0)
    codes_OI = torch.randint(low, high + 1, (num_out, num_in), generator=generator)
    groups = num_in // fmt.group_size if fmt.group_size else 1
    shape = (1, 1) if fmt.granularity == "per_tensor" else (num_out, groups)
    scale_OG = torch.full(shape, 2.0**-8)
    if fmt.scale_dtype == "float32":
        scale_OG = torch.full(shape, 0.003)  # no number of bfloat16
    zero_OG = None if fmt.symmetric else torch.ones(shape, dtype=torch.int8)
    activation = format.activation
    return StoredCodes(
        "layer", Codes(codes_OI.to(torch.int8), scale_OG, zero_OG), fmt.bits, activation
    )


def _model(part: StoredCodes, copies: int, lowering: Lowering) -> bytes:
    """Copies of a layer, each with codes of its own, on one input."""
    num_in = part.codes.codes_OI.shape[1]
    given = ir.Value(
        name="input", shape=ir.Shape([1, 1, num_in]), type=ir.TensorType(ir.DataType.FLOAT)
    )
    end = ir.node("Identity", [given], outputs=[ir.Value(name="end")])
    main = ir.Graph(
        [given], [], nodes=[end], name="copies", opset_imports={"": OPSET, OPERATORS: 1}
    )
    drawing = IrDrawing(main, before=end)
    graph = Graph(hardware.kind(), prefers_speed=lowering == "hybrid", drawing=drawing)
    for index in range(copies):
        name = f"layer{index}"
        drawn.matmul(graph, lowering, [part], name, "input", f"{name}/output")
        output = drawing.values[f"{name}/output"]
        output.type = ir.TensorType(ir.DataType.FLOAT)
        main.outputs.append(output)
    main.sort()
    content: bytes = ir.to_proto(ir.Model(main, ir_version=IR_VERSION)).SerializeToString()
    return content


def _milliseconds(run: Callable[[], object]) -> float:
    began = time.perf_counter()
    run()
    return (time.perf_counter() - began) * 1000
