"""Models that quantship did not write."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper
from onnxruntime.quantization import (
    CalibrationDataReader,
    QuantFormat,
    QuantType,
    quantize_dynamic,
    quantize_static,
)

from quantship.inspection.inspect import inspect
from quantship.inspection.report import Inspection, QuantizedTensor

RANDOM = np.random.default_rng(0)


def only(found: Inspection) -> QuantizedTensor:
    (one,) = found.quantized
    return one


def integers(low: int, high: int, shape: tuple[int, ...], dtype: Any) -> Any:
    return RANDOM.integers(low, high, shape, endpoint=True).astype(dtype)


def nbits(path_maker: Any, *, bits: int, block: int, scales: Any, **attributes: Any) -> Path:
    """MatMulNBits of 64 inputs and 32 outputs."""
    codes = integers(0, 255, (32, 64 // block, block * bits // 8), np.uint8)
    node = helper.make_node(
        "MatMulNBits",
        ["x", "codes", "scales"],
        ["y"],
        domain="com.microsoft",
        name="/layers.0/fc/MatMul",
        **{"K": 64, "N": 32, "bits": bits, "block_size": block, **attributes},
    )
    return path_maker([node], {"codes": codes, "scales": scales})


def test_groups_and_repeated_scales_are_told_apart(make_onnx: Any) -> None:
    own = RANDOM.random((32, 2)).astype(np.float32)
    grouped = only(inspect(nbits(make_onnx, bits=4, block=32, scales=own)))
    assert (grouped.granularity, grouped.group_size) == ("per_group", 32)
    repeated = np.repeat(own[:, :1], 2, axis=1)
    one = only(inspect(nbits(make_onnx, bits=4, block=32, scales=repeated)))
    assert (one.granularity, one.group_size) == ("per_channel", None)
    assert "one scale a channel (repeated every 32)" in one.format
    same = np.full_like(own, 0.5)
    assert (
        only(inspect(nbits(make_onnx, bits=4, block=32, scales=same))).granularity == "per_tensor"
    )


def test_a_slow_accuracy_level_is_a_hazard(make_onnx: Any) -> None:
    scales = RANDOM.random((32, 2)).astype(np.float32)
    slow = inspect(nbits(make_onnx, bits=8, block=32, scales=scales))
    assert [one.code for one in slow.hazards] == ["float-products"]
    assert slow.hazards[0].layers == ("layers.0.fc",)
    assert only(slow).uses[0].activation == "float32 (accuracy level 0)"
    fast = inspect(nbits(make_onnx, bits=8, block=32, scales=scales, accuracy_level=4))
    assert fast.hazards == ()


def test_narrow_codes_in_wide_containers_are_seen(make_onnx: Any) -> None:
    scales = RANDOM.random((128, 8)).astype(np.float32)
    low, high = integers(6, 9, (2, 128, 8, 16), np.uint8)  # -2 to 1, shifted by 8
    node = helper.make_node(
        "MatMulNBits",
        ["x", "codes", "scales"],
        ["y"],
        domain="com.microsoft",
        K=256,
        N=128,
        bits=4,
        block_size=32,
        accuracy_level=4,
    )
    arrays = {"codes": low | (high << 4), "scales": scales}
    one = only(inspect(make_onnx([node], arrays, size=(256, 128))))
    assert (one.bits, one.container_bits) == (2, 4)
    assert one.format.startswith("int2 in 4 bits")


def test_blocks_on_axis_0_fuse_and_transposed_ones_do_not(make_onnx: Any) -> None:
    codes = integers(-8, 7, (64, 32), ir.DataType.INT4.numpy())
    scales = RANDOM.random((2, 32)).astype(np.float32)
    dequantize = helper.make_node(
        "DequantizeLinear", ["w", "s"], ["float"], axis=0, block_size=32, name="/fc/dq"
    )
    multiply = helper.make_node("MatMul", ["x", "float"], ["y"], name="/fc/MatMul")
    fused = inspect(make_onnx([dequantize, multiply], {"w": codes, "s": scales}))
    one = only(fused)
    assert (one.bits, one.group_size, one.dtype) == (4, 32, "int4")
    assert one.uses[0].operator == "DequantizeLinear → MatMul"
    assert one.runs_as == ("MatMulNBits",)
    assert fused.hazards == ()

    dequantize = helper.make_node(
        "DequantizeLinear", ["w", "s"], ["float"], axis=1, block_size=32, name="/fc/dq"
    )
    turn = helper.make_node("Transpose", ["float"], ["turned"], perm=[1, 0])
    multiply = helper.make_node("MatMul", ["x", "turned"], ["y"], name="/fc/MatMul")
    arrays = {"w": codes.T.copy(), "s": scales.T.copy()}
    unfused = inspect(make_onnx([dequantize, turn, multiply], arrays))
    assert unfused.fusion is not None
    assert unfused.fusion.unfused == ("fc",)
    assert [one.code for one in unfused.hazards] == ["unfused"]
    assert only(unfused).format == only(fused).format


@pytest.mark.parametrize("zero", [128, 100])
def test_symmetry_is_judged_by_the_zero_points(make_onnx: Any, zero: int) -> None:
    arrays = {
        "w": integers(0, 255, (64, 32), np.uint8),
        "s": RANDOM.random(32).astype(np.float32),
        "z": np.full(32, zero, np.uint8),
    }
    nodes = [
        helper.make_node("DequantizeLinear", ["w", "s", "z"], ["float"], axis=1),
        helper.make_node("MatMul", ["x", "float"], ["y"], name="fc"),
    ]
    assert only(inspect(make_onnx(nodes, arrays), session=False)).symmetric == (zero == 128)


def test_the_stock_recipe_is_recognized(float_model: Path, tmp_path: Path) -> None:
    path = tmp_path / "stock.onnx"
    quantize_dynamic(float_model, path, per_channel=True, weight_type=QuantType.QInt8)
    found = inspect(path)
    one = only(found)
    assert one.layers == ("fc",)
    assert (one.granularity, one.symmetric, one.bits) == ("per_channel", True, 8)
    assert one.shape == (32, 64)
    assert one.uses[0].activation == "uint8, asymmetric, dynamic, one scale a tensor"
    assert one.runs_as == ("DynamicQuantizeMatMul",)
    assert found.sizes.num_parameters == 64 * 32
    changed = {change.operator for change in found.fusion.changed} if found.fusion else set()
    assert {"MatMulInteger", "DynamicQuantizeMatMul"} <= changed


class Batches(CalibrationDataReader):
    def __init__(self) -> None:
        self.left = 3

    def get_next(self) -> dict[str, Any] | None:
        self.left -= 1
        batch = RANDOM.standard_normal((2, 3, 16, 16)).astype(np.float32)
        return {"x": batch} if self.left >= 0 else None


@pytest.fixture
def convolution(tmp_path: Path) -> Path:
    """A convolution and a linear layer, both with biases: 314 parameters."""
    import onnx
    from onnx import numpy_helper

    arrays = {
        "conv.weight": (8, 3, 3, 3),
        "conv.bias": (8,),
        "fc.weight": (10, 8),
        "fc.bias": (10,),
    }
    tensors = [
        numpy_helper.from_array(RANDOM.standard_normal(shape).astype(np.float32), name)
        for name, shape in arrays.items()
    ]
    nodes = [
        helper.make_node("Conv", ["x", "conv.weight", "conv.bias"], ["c"], name="/conv/Conv"),
        helper.make_node("GlobalAveragePool", ["c"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node(
            "Gemm", ["flat", "fc.weight", "fc.bias"], ["y"], transB=1, name="/fc/Gemm"
        ),
    ]
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name, shape in (("x", ["batch", 3, 16, 16]), ("y", ["batch", 10]))
    ]
    graph = helper.make_graph(nodes, "graph", ends[:1], ends[1:], tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    path = tmp_path / "convolution.onnx"
    onnx.save(model, path)
    return path


def test_convolutions_and_biases_are_parameters_too(convolution: Path) -> None:
    found = inspect(convolution)
    assert found.sizes.num_parameters == 314
    assert [one.role for one in found.floats] == ["convolution", "bias", "head", "bias"]
    assert {one.reason for one in found.floats} == {"nothing in this model is quantized"}


@pytest.mark.parametrize("format", [QuantFormat.QDQ, QuantFormat.QOperator])
def test_static_models_of_either_form(convolution: Path, tmp_path: Path, format: Any) -> None:
    path = tmp_path / "static.onnx"
    quantize_static(
        convolution, path, Batches(), quant_format=format, activation_type=QuantType.QUInt8
    )
    found = inspect(path)
    layers = {one.layers[0]: one for one in found.quantized}
    assert layers.keys() == {"conv", "fc"}
    assert layers["conv"].num_parameters == 8 * 3 * 3 * 3
    assert layers["conv"].uses[0].does == "convolves"
    assert layers["conv"].uses[0].activation == "uint8, static, one scale a tensor"
    assert layers["conv"].runs_as == ("QLinearConv",)
    if format == QuantFormat.QDQ:
        assert found.sizes.num_parameters == 314
        assert layers["fc"].runs_as == ("QGemm",)


def test_signed_inputs_have_no_fast_kernel(convolution: Path, tmp_path: Path) -> None:
    path = tmp_path / "signed.onnx"
    quantize_static(convolution, path, Batches(), activation_type=QuantType.QInt8)
    found = inspect(path, session=False)
    codes = {one.code for one in found.hazards}
    assert ("no-fast-kernel" in codes) == (not found.machine.is_arm)


def test_branches_share_outer_codes(make_onnx: Any) -> None:
    arrays = {
        "codes": integers(0, 255, (64, 32), np.uint8),
        "zero": np.array(128, np.uint8),
        "scale": RANDOM.random(32).astype(np.float32),
        "input_scale": np.array(0.1, np.float32),
        "threshold": np.array(4.0, np.float32),
    }
    shape = ["batch", 32]

    def branch(name: str) -> Any:
        nodes = [
            helper.make_node("QuantizeLinear", ["x", "input_scale", "zero"], [f"{name}/u"]),
            helper.make_node(
                "MatMulInteger",
                [f"{name}/u", "codes", "zero", "zero"],
                [f"{name}/i"],
                name=f"{name}/fc/MatMul",
            ),
            helper.make_node("Cast", [f"{name}/i"], [f"{name}/f"], to=TensorProto.FLOAT),
            helper.make_node("Mul", ["input_scale", "scale"], [f"{name}/both"]),
            helper.make_node("Mul", [f"{name}/f", f"{name}/both"], [f"{name}/y"]),
        ]
        end = helper.make_tensor_value_info(f"{name}/y", TensorProto.FLOAT, shape)
        return helper.make_graph(nodes, name, [], [end])

    nodes = [
        helper.make_node("ReduceMax", ["x"], ["most"], keepdims=0),
        helper.make_node("Greater", ["most", "threshold"], ["many"]),
        helper.make_node(
            "If", ["many"], ["y"], then_branch=branch("then"), else_branch=branch("else")
        ),
    ]
    found = inspect(make_onnx(nodes, arrays))
    one = only(found)
    assert {use.node for use in one.uses} == {"then/fc/MatMul", "else/fc/MatMul"}
    assert one.granularity == "per_channel"
    assert one.size_bytes == 64 * 32 + 32 * 4 + 1
    assert one.uses[0].activation == "uint8, static, one scale a tensor"
    assert found.onnx is not None
    counts = {entry.operator: entry.count for entry in found.onnx.operators}
    assert counts["MatMulInteger"] == 2


def test_codes_unpacked_by_nodes_count_as_they_are_stored(make_onnx: Any) -> None:
    """Two codes a byte in the file, one a byte for the operator."""
    packed = integers(0, 255, (64, 16), np.uint8)
    arrays = {
        "codes": packed,
        "low": np.array(15, np.uint8),
        "four": np.array(4, np.uint8),
        "zero": np.array(8, np.uint8),
        "scale": RANDOM.random(32).astype(np.float32),
    }
    nodes = [
        helper.make_node("BitwiseAnd", ["codes", "low"], ["even"]),
        helper.make_node("BitShift", ["codes", "four"], ["odd"], direction="RIGHT"),
        helper.make_node("Concat", ["even", "odd"], ["wide"], axis=1),
        helper.make_node("DynamicQuantizeLinear", ["x"], ["u", "us", "uz"]),
        helper.make_node("MatMulInteger", ["u", "wide", "uz", "zero"], ["i"], name="fc"),
        helper.make_node("Cast", ["i"], ["f"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["us", "scale"], ["both"]),
        helper.make_node("Mul", ["f", "both"], ["y"]),
    ]
    one = only(inspect(make_onnx(nodes, arrays)))
    assert one.tensor == "codes"
    assert one.size_bytes == 64 * 16 + 32 * 4 + 1
    assert (one.bits, one.num_parameters, one.symmetric) == (4, 64 * 32, None)
    assert one.runs_as == ("DynamicQuantizeMatMul",)


def test_the_operators_type_is_the_one_that_counts(make_onnx: Any) -> None:
    """Unsigned in the file, signed where they are multiplied."""
    arrays = {
        "codes": integers(0, 255, (64, 32), np.uint8),
        "middle": np.array(128, np.int16),
        "scale": RANDOM.random(32).astype(np.float32),
    }
    nodes = [
        helper.make_node("Cast", ["codes"], ["wide"], to=TensorProto.INT16),
        helper.make_node("Sub", ["wide", "middle"], ["centred"]),
        helper.make_node("Cast", ["centred"], ["signed"], to=TensorProto.INT8),
        helper.make_node("DynamicQuantizeLinear", ["x"], ["u", "us", "uz"]),
        helper.make_node("MatMulInteger", ["u", "signed", "uz"], ["i"], name="fc"),
        helper.make_node("Cast", ["i"], ["f"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["us", "scale"], ["both"]),
        helper.make_node("Mul", ["f", "both"], ["y"]),
    ]
    one = only(inspect(make_onnx(nodes, arrays)))
    assert (one.dtype, one.uses[0].weight_dtype) == ("uint8", "int8")
    assert (one.granularity, one.symmetric) == ("per_channel", None)


def test_a_product_of_two_activations_is_no_weight(make_onnx: Any) -> None:
    nodes = [
        helper.make_node("DynamicQuantizeLinear", ["x"], ["u", "us", "uz"]),
        helper.make_node("Transpose", ["u"], ["t"], perm=[1, 0]),
        helper.make_node("MatMulInteger", ["u", "t", "uz", "uz"], ["i"]),
        helper.make_node("Cast", ["i"], ["y"], to=TensorProto.FLOAT),
    ]
    assert inspect(make_onnx(nodes, {}, size=(32, 32))).quantized == ()
