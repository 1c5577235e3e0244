"""What layers of standard operators consist of, and what onnxruntime fuses them to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx
import onnx_ir as ir
import pytest
from numpy.typing import NDArray

from quantship.exporters import qdq
from quantship.exporters.targets import Target
from quantship.quant.scheme import ActivationFormat, WeightFormat

Array = NDArray[Any]
TOKENS = ActivationFormat()
SYMMETRIC = ActivationFormat(symmetric=True)
TENSOR = ActivationFormat(granularity="per_tensor")
STATIC = ActivationFormat(granularity="per_tensor", ranges="static")
BY_ROW = WeightFormat(bits=8)
INPUTS = [None, TOKENS, SYMMETRIC, TENSOR, STATIC]
TARGETS: list[Target] = ["x86", "x86-vnni", "arm", "cuda", "portable"]


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("activation", INPUTS, ids=lambda one: repr(one)[:60])
@pytest.mark.parametrize("weight", [BY_ROW, WeightFormat(bits=4, group_size=32)], ids=repr)
def test_graphs_are_valid_standard_onnx(
    part: Any,
    multiplied: Any,
    weight: WeightFormat,
    activation: ActivationFormat | None,
    target: Target,
) -> None:
    drawn = multiplied(part(weight, activation), target=target).give("y")
    onnx.checker.check_model(drawn.proto, full_check=True)
    assert {node.domain for node in drawn.model.graph} == {""}
    inferred = onnx.shape_inference.infer_shapes(drawn.proto, strict_mode=True, data_prop=True)
    (output,) = inferred.graph.output
    assert output.type.tensor_type.shape.dim[2].dim_value == 40


@pytest.mark.parametrize(
    ("weight", "activation", "operator", "block"),
    [
        (BY_ROW, None, "MatMulNBits", 32),
        (WeightFormat(bits=4), None, "MatMulNBits", 32),
        (WeightFormat(bits=8, symmetric=False), None, "MatMulNBits", 32),
        (WeightFormat(bits=8, granularity="per_tensor"), None, "MatMulNBits", 32),
        *((WeightFormat(bits=4, group_size=size), None, "MatMulNBits", size) for size in (16, 32)),
        (WeightFormat(bits=8, group_size=32), None, "MatMulNBits", 32),
        (WeightFormat(bits=8, group_size=32), TOKENS, "MatMulNBits", 32),
        (WeightFormat(bits=2, group_size=32, symmetric=False), None, "MatMulNBits", 32),
        (WeightFormat(bits=4, group_size=24), None, "MatMul", None),
        (WeightFormat(bits=4, group_size=8), None, "MatMul", None),
        (WeightFormat(bits=4, group_size=96), None, "MatMulNBits", 32),  # one scale a row
        *((BY_ROW, activation, "MatMulIntegerToFloat", None) for activation in INPUTS[1:]),
        (WeightFormat(bits=4), TOKENS, "MatMulIntegerToFloat", None),
        (WeightFormat(bits=8, symmetric=False), TOKENS, "MatMulIntegerToFloat", None),
    ],
    ids=lambda one: repr(one)[:70],
)
def test_onnxruntime_fuses_what_it_knows(
    part: Any,
    multiplied: Any,
    weight: WeightFormat,
    activation: ActivationFormat | None,
    operator: str,
    block: int | None,
    tmp_path: Path,
) -> None:
    nodes = multiplied(part(weight, activation)).give("y").fused(tmp_path)
    (product,) = [node for node in nodes if node.op_type.startswith("MatMul")]
    assert product.op_type == operator
    if block is not None:
        assert product.attributes["block_size"].as_int() == block
        assert product.attributes["accuracy_level"].as_int() == 4
        assert product.attributes["bits"].as_int() == (4 if weight.bits <= 4 else 8)


@pytest.mark.parametrize(
    ("target", "quantized"),
    [
        ("x86", ir.DataType.UINT8),  # where products of signed and unsigned codes saturate
        ("portable", ir.DataType.UINT8),
        ("x86-vnni", ir.DataType.INT8),
        ("arm", ir.DataType.INT8),
        ("cuda", ir.DataType.INT8),
    ],
)
def test_the_target_decides_on_signs_where_integers_are_multiplied(
    part: Any, multiplied: Any, target: Target, quantized: ir.DataType
) -> None:
    for activation in INPUTS[1:]:
        drawn = multiplied(part(BY_ROW, activation), target=target)
        assert drawn.model.graph.initializers["layer.codes"].dtype == quantized
        assert ("layer.zeros" in drawn.model.graph.initializers) == (quantized == ir.DataType.UINT8)
    unrounded = multiplied(part(BY_ROW), target=target).model.graph.initializers
    assert unrounded["layer.codes"].dtype == ir.DataType.INT8


def test_tensorrt_gets_signed_codes_on_both_sides_of_a_static_layer(
    part: Any, multiplied: Any
) -> None:
    symmetric = STATIC.model_copy(update={"symmetric": True})
    drawn = multiplied(part(BY_ROW, symmetric), target="cuda")
    (weight,) = [node for node in drawn.model.graph if node.outputs[0].name == "layer/weight"]
    assert len(weight.inputs) == 2  # without zero points, which TensorRT wants to be 0
    (rounding,) = [node for node in drawn.model.graph if node.op_type == "QuantizeLinear"]
    zero = rounding.inputs[2]
    assert zero is not None
    assert zero.const_value is not None
    assert (zero.dtype, int(zero.const_value.numpy())) == (ir.DataType.INT8, 0)


@pytest.mark.parametrize(
    ("weight", "activation", "shape", "dtype"),
    [
        (WeightFormat(bits=4), None, (40, 96), ir.DataType.INT4),
        (WeightFormat(bits=2), None, (40, 96), ir.DataType.INT4),
        (WeightFormat(bits=5), None, (40, 96), ir.DataType.INT8),
        (WeightFormat(bits=4), None, (40, 97), ir.DataType.INT8),
        (WeightFormat(bits=4), TOKENS, (40, 96), ir.DataType.UINT8),
        (WeightFormat(bits=4, group_size=32), TOKENS, (40, 96), ir.DataType.INT4),
    ],
)
def test_codes_of_up_to_4_bits_lie_two_a_byte_where_runtimes_read_them(
    part: Any,
    multiplied: Any,
    weight: WeightFormat,
    activation: ActivationFormat | None,
    shape: tuple[int, int],
    dtype: ir.DataType,
) -> None:
    one = part(weight, activation, shape=shape)
    drawn = multiplied(one)
    stored = drawn.model.graph.initializers["layer.codes"]
    assert stored.dtype == dtype
    assert stored.const_value is not None
    assert stored.const_value.nbytes == shape[0] * shape[1] * dtype.bitwidth // 8
    assert drawn.graph.places["layer"].container_bits == dtype.bitwidth


def test_layers_with_a_common_input_round_it_once(part: Any, empty: Any) -> None:
    for activation in INPUTS[1:]:
        drawn = empty()
        for name in ("one", "two"):
            qdq.matmul(drawn.graph, [part(BY_ROW, activation, name=name)], name, "x", f"{name}/y")
        operators = [node.op_type for node in drawn.model.graph]
        assert operators.count("QuantizeLinear") == 1
        assert operators.count("DequantizeLinear") == 3  # of the input, and of two weights
