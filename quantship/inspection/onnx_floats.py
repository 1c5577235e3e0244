"""Parameters of an ONNX graph that are in float, what they are for, and why they are."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

import onnx_ir as ir

from quantship.inspection.names import layer_of
from quantship.inspection.onnx_file import OnnxFile
from quantship.inspection.onnx_values import Stored, is_float, readers
from quantship.inspection.report import FloatTensor, Role

NORMS = (
    "BatchNormalization",
    "EmbedLayerNormalization",
    "GroupNorm",
    "GroupNormalization",
    "InstanceNormalization",
    "LayerNormalization",
    "RMSNormalization",
    "SimplifiedLayerNormalization",
    "SkipGroupNorm",
    "SkipLayerNormalization",
    "SkipSimplifiedLayerNormalization",
)
MATRICES = ("MatMul", "FusedMatMul", "Gemm", "Attention", "LSTM", "GRU", "RNN", "Einsum", "MoE")
CONVOLUTIONS = ("Conv", "ConvTranspose", "FusedConv", "NhwcConv")
TABLES = {"GroupQueryAttention": (7, 8), "RotaryEmbedding": (1, 2, 3)}
"""Inputs that are tables of angles, not parameters."""
SCALES = {"DequantizeLinear": (1, 2), "QuantizeLinear": (1, 2)}
"""Inputs that are a grid's scales and zero points, not parameters."""
INTEGER_BIASES = {"DequantizeLinear": (0,), "QLinearConv": (8,), "QGemm": (6,)}
"""Inputs that are biases on the grid of the products, where they are int32."""
TABLE_NAMES = {"cos_cache", "sin_cache", "inv_freq", "cos_cached", "sin_cached"}


def find(file: OnnxFile, claimed: Iterable[str], scheme: str | None) -> tuple[FloatTensor, ...]:
    """Every float parameter of a model.

    Args:
        file: The model.
        claimed: Names of tensors that belong to quantized weights.
        scheme: Scheme that quantship's metadata names.
    """
    taken = set(claimed)
    values = _values(file.model)
    found = []
    for name, tensor in file.tensors.items():
        one = Stored(name, tensor)
        value = values.get(name)
        if name in taken or value is None or one.size < 2:
            continue
        uses = list(readers(value))
        integer_bias = _reads_all(uses, INTEGER_BIASES) and tensor.dtype == ir.DataType.INT32
        if not integer_bias and (not is_float(tensor.dtype) or _is_table(name, uses)):
            continue
        role: Role = "bias" if integer_bias else _role(one, uses)
        node = uses[0][0].name or "" if uses else ""
        found.append(
            FloatTensor(
                name=name,
                layer=layer_of(node, name),
                role=role,
                dtype=one.dtype,
                shape=one.shape,
                num_parameters=one.size,
                size_bytes=tensor.nbytes,
                reason=reason(role, scheme, quantized=bool(taken)),
            )
        )
    return tuple(found)


def reason(role: Role, scheme: str | None, *, quantized: bool) -> str:
    """Why a parameter is in float, as far as the file tells.

    Args:
        role: What it is for.
        scheme: Scheme that quantship's metadata names.
        quantized: Whether any weight of the model is quantized.
    """
    if not quantized:
        return "nothing in this model is quantized"
    if role == "norm":
        return "a vector of a norm: too small to be worth integers"
    if role == "bias":
        return "a bias: it is added after the product"
    if role == "other":
        return "no matrix that is multiplied or looked up"
    what = {"embedding": "an embedding", "head": "the output head"}.get(role, f"a {role}")
    if scheme is not None:
        return f"{what} that scheme {scheme} leaves in float"
    return f"{what} that its exporter left in float; the file does not say why"


def _values(model: ir.Model) -> dict[str, ir.Value]:
    values: dict[str, ir.Value] = {}
    for graph in (model.graph, *model.graph.subgraphs()):
        values |= graph.initializers
    for node in model.graph.all_nodes():
        if node.op_type == "Constant" and node.outputs[0].name:
            values[node.outputs[0].name] = node.outputs[0]
    return values


def _is_table(name: str, uses: list[tuple[ir.Node, int]]) -> bool:
    if TABLE_NAMES & set(re.split(r"[./]", name)):
        return True
    return _reads_all(uses, TABLES) or _reads_all(uses, SCALES)


def _reads_all(uses: list[tuple[ir.Node, int]], inputs: Mapping[str, tuple[int, ...]]) -> bool:
    """Whether a tensor is read as nothing but these inputs of these operators."""
    return bool(uses) and all(index in inputs.get(node.op_type, ()) for node, index in uses)


def _role(tensor: Stored, uses: list[tuple[ir.Node, int]]) -> Role:
    roles = [_role_of_use(tensor, node, index) for node, index in uses]
    order: tuple[Role, ...] = ("embedding", "head", "matrix", "convolution", "norm", "bias")
    return next((role for role in order if role in roles), "other")


def _role_of_use(tensor: Stored, node: ir.Node, index: int) -> Role:
    wide = len([size for size in tensor.shape if size > 1]) > 1
    if node.op_type in NORMS and not wide:
        return "norm"
    if node.op_type in ("Gather", "EmbedLayerNormalization") and index != 1 and wide:
        return "embedding"
    if node.op_type in MATRICES and wide:
        return "head" if node.outputs[0].is_graph_output() else "matrix"
    if node.op_type in CONVOLUTIONS and wide:
        return "convolution"
    if wide:
        return "other"
    if node.op_type in ("Add", "Gemm", "BiasGelu", "FastGelu", "Attention", *CONVOLUTIONS):
        return "bias"
    named = f"{tensor.name} {node.name}".lower()
    return "norm" if any(word in named for word in ("norm", "ln_", ".ln")) else "other"
