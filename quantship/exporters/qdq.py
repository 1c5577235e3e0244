"""Weight codes behind DequantizeLinear: standard operators, which any ONNX runtime reads.

A matrix lies as (in, out) features, and its scales run along axis 0: so onnxruntime makes
MatMulNBits of it, or MatMulIntegerToFloat where the input is quantized too. Where a row has one
scale, inputs are quantized as in training: a static range by a QuantizeLinear and DequantizeLinear
of that range, a dynamic one by the nodes of ``inputs``, with a DequantizeLinear of scale 1 behind
them and the input's own scale after the product. Where a row has several, inputs stay in float:
onnxruntime 1.31 would fuse them with 8-bit blocks into a node that fails.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from quantship.exporters import inputs
from quantship.exporters.graph import ConstantType, Graph, Place
from quantship.exporters.inputs import MIDDLE, Rounding
from quantship.exporters.targets import Target, multiplies_signed_exactly
from quantship.quant.tensors import StoredCodes

Array = NDArray[Any]


class Layout(NamedTuple):
    """What matrices must agree on to lie in one initializer."""

    block_size: int | None
    """Input features that share a scale; None: all of a row."""
    dtype: ir.DataType
    """INT4 and INT8 codes are the checkpoint's; UINT8 ones are shifted by 128."""
    zero_points: bool
    """Whether zero points lie in the file: those of the checkpoint, or the shift."""
    rounding: Rounding | None
    """How the input is quantized; None: it stays in float."""


class Stored(NamedTuple):
    """Names of the values that hold a matrix."""

    codes: str
    scales: str
    zeros: str | None


def layout(part: StoredCodes, target: Target) -> Layout:
    """How a matrix lies in the file, and what becomes of its input."""
    width, num_groups = part.codes.codes_OI.shape[1], part.codes.scale_OG.shape[1]
    block = width // num_groups if num_groups > 1 else None
    has_zeros = part.codes.zero_OG is not None
    if part.activation is None or block is not None:
        # Half bytes multiply no integers, and OpenVINO 2026.4 misreads those of an odd width.
        narrow = part.bits <= 4 and width % 2 == 0
        return Layout(block, ir.DataType.INT4 if narrow else ir.DataType.INT8, has_zeros, None)
    signed = target == "cuda" or multiplies_signed_exactly(target)
    dtype = ir.DataType.INT8 if signed else ir.DataType.UINT8
    return Layout(None, dtype, has_zeros or not signed, inputs.rounding(part))


def matmul(graph: Graph, parts: list[StoredCodes], name: str, input: str, output: str) -> None:
    """Multiply ``input`` by the rows of all ``parts``, one below the other, of one layout.

    Args:
        graph: The graph under construction.
        parts: Matrices of one layout.
        name: Of the layer.
        input: Name of its input.
        output: Name of its output.
    """
    form = layout(parts[0], graph.target)
    stored = store(graph, parts, name)
    axis: dict[str, Any] = {"axis": 1}
    if form.block_size is not None:
        axis = {"axis": 0, "block_size": form.block_size}
    given = [value for value in stored if value is not None]
    weight = graph.node("DequantizeLinear", given, f"{name}/weight", **axis)
    if form.rounding is None:
        graph.node("MatMul", [input, weight], output)
    elif form.rounding.scale is not None:
        known = _static(graph, input, form.rounding, name)
        graph.node("MatMul", [known, weight], output)
    else:
        _multiply_dynamic(graph, parts, form.rounding, name, input, weight, output)


def store(graph: Graph, parts: list[StoredCodes], name: str) -> Stored:
    """Add the initializers of ``parts`` and note where each lies."""
    form = layout(parts[0], graph.target)
    assert all(layout(part, graph.target) == form for part in parts)
    graph.signed_weights |= form.rounding is not None and form.dtype == ir.DataType.INT8
    stored = Stored(
        f"{name}.codes", f"{name}.scales", f"{name}.zeros" if form.zero_points else None
    )
    codes_IO = np.concatenate([part.codes.codes_OI.numpy() for part in parts]).T
    graph.initializer(stored.codes, _as_stored(codes_IO, form))
    scales = np.concatenate([_by_rows(part, part.codes.scale_OG.float().numpy()) for part in parts])
    graph.initializer(stored.scales, _along_axis(scales, form))
    if stored.zeros is not None:
        zeros = np.concatenate([_zeros(part) for part in parts])
        graph.initializer(stored.zeros, _as_stored(_along_axis(zeros, form), form))
    row = 0
    for part in parts:
        num_out, width = part.codes.codes_OI.shape
        graph.places[part.name] = Place(
            "qdq", stored.codes, stored.scales, (row, row + num_out), width, form.dtype.bitwidth
        )
        row += num_out
    return stored


def names(part: StoredCodes, name: str) -> Stored:
    """Names of the values that ``store`` gives to a matrix whose input stays in float."""
    has_zeros = part.codes.zero_OG is not None
    return Stored(f"{name}.codes", f"{name}.scales", f"{name}.zeros" if has_zeros else None)


def embedding(graph: Graph, part: StoredCodes, stored: Stored, name: str, ids: str) -> str:
    """Look up codes that ``store`` has put, or will put, into the model, and dequantize those.

    What is looked up is turned first, to one row a token. Runtimes do so when they load the model,
    and onnxruntime fuses a tied head only where nothing else uses its initializers after that.
    DequantizeLinear could take a scale for each block looked up, but OpenVINO reads it of known
    shapes only: so the few numbers are subtracted and multiplied.

    Args:
        graph: The graph under construction.
        part: The matrix, one row a token.
        stored: Where it lies.
        name: Of the embedding.
        ids: Name of the token ids, (batch, sequence).
    """
    form = layout(part, graph.target)
    width = part.codes.codes_OI.shape[1]

    def looked_up(value: str, what: str) -> str:
        prefix = f"{name}/{what}"
        if what != "scales" and form.dtype == ir.DataType.INT4:  # which Gather does not take
            value = graph.node("Cast", [value], f"{prefix}/wide", to=ir.DataType.INT8)
        if what != "codes" and form.block_size is None:  # one number a token
            last = graph.constant("INT64", [-1])
            value = graph.node("Unsqueeze", [value, last], f"{prefix}/turned")
        else:
            value = graph.node("Transpose", [value], f"{prefix}/turned", perm=[1, 0])
        found = graph.node("Gather", [value, ids], f"{prefix}/found", axis=0)
        if what != "scales":
            found = graph.node("Cast", [found], f"{prefix}/floats", to=ir.DataType.FLOAT)
        if form.block_size is None:
            return found
        shape = [0, 0, width // form.block_size, form.block_size if what == "codes" else 1]
        return graph.node("Reshape", [found, graph.constant("INT64", shape)], f"{prefix}/blocks")

    rows = looked_up(stored.codes, "codes")
    if stored.zeros is not None:
        rows = graph.node("Sub", [rows, looked_up(stored.zeros, "zeros")], f"{name}/centred")
    rows = graph.node("Mul", [rows, looked_up(stored.scales, "scales")], f"{name}/rows")
    if form.block_size is None:
        return rows
    return graph.node("Reshape", [rows, graph.constant("INT64", [0, 0, width])], f"{name}/whole")


def _static(graph: Graph, input: str, how: Rounding, name: str) -> str:
    """The input rounded to its trained grid, once for all layers that share it."""
    known: str | None = graph.quantized_inputs.get(("qdq", input, how))
    if known is None:
        zero = how.zero or 0
        # TensorRT, on CUDA, takes signed inputs only.
        kind: ConstantType = "INT8" if graph.target == "cuda" else "UINT8"
        scale = graph.initializer(f"{name}.input_scale", np.array(how.scale, np.float32))
        grid = [scale, graph.constant(kind, zero if kind == "INT8" else zero + MIDDLE)]
        codes = graph.node("QuantizeLinear", [input, *grid], f"{input}/static{name}/codes")
        known = graph.node("DequantizeLinear", [codes, *grid], f"{input}/static{name}/floats")
        graph.quantized_inputs["qdq", input, how] = known
    return known


def _multiply_dynamic(
    graph: Graph,
    parts: list[StoredCodes],
    how: Rounding,
    name: str,
    input: str,
    weight: str,
    output: str,
) -> None:
    given = inputs.quantize(graph, input, how, name)
    whole: str | None = graph.quantized_inputs.get(("qdq", input, how))
    if whole is None:
        one = graph.constant("FLOAT", 1.0)
        whole = graph.node(
            "DequantizeLinear", [given.codes, one, given.zero], f"{given.codes}/whole"
        )
        graph.quantized_inputs["qdq", input, how] = whole
    total = graph.node("MatMul", [whole, weight], f"{output}/products")
    if given.shift is not None:
        # With a shift z for each token, sum((u + z) w) = sum(u w) + z sum(w).
        sum_O = np.concatenate([_sums(part) for part in parts]).astype(np.float32)
        sums = graph.initializer(f"{name}.sums", sum_O)
        correction = graph.node("Mul", [given.shift, sums], f"{output}/correction")
        total = graph.node("Add", [total, correction], f"{output}/centred")
    graph.node("Mul", [total, given.scale], output)


def _sums(part: StoredCodes) -> Array:
    """Sum of each row of a dequantized matrix with one scale a row."""
    codes_OI, zeros = part.codes.codes_OI.numpy(), _zeros(part).astype(np.int64)
    scale_O1 = _by_rows(part, part.codes.scale_OG.double().numpy())
    sums: Array = codes_OI.sum(axis=1, keepdims=True, dtype=np.int64) - zeros * codes_OI.shape[1]
    return (sums * scale_O1)[:, 0]


def _zeros(part: StoredCodes) -> Array:
    zero_OG = part.codes.zero_OG
    numbers = np.zeros((1, 1), np.int8) if zero_OG is None else zero_OG.numpy().astype(np.int8)
    return _by_rows(part, numbers)


def _by_rows(part: StoredCodes, numbers_OG: Array) -> Array:
    """Numbers of shape (O, G), or (1, 1) for the whole matrix, as some for each row."""
    return np.broadcast_to(numbers_OG, (part.codes.codes_OI.shape[0], numbers_OG.shape[1]))


def _along_axis(numbers_OG: Array, form: Layout) -> Array:
    """Numbers as DequantizeLinear takes them: (G, O) for blocks, else (O)."""
    return numbers_OG[:, 0] if form.block_size is None else numbers_OG.T


def _as_stored(signed: Array, form: Layout) -> Array:
    if form.dtype == ir.DataType.UINT8:
        return (signed.astype(np.int16) + MIDDLE).astype(np.uint8)
    return signed.astype(form.dtype.numpy())
