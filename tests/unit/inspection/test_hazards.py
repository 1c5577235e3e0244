from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from onnx import helper
from onnxruntime.quantization import QuantType, quantize_dynamic

from quantship.inspection import machine
from quantship.inspection.inspect import inspect
from quantship.inspection.report import Machine


def cpu(*, is_arm: bool = False, has_vnni: bool = False) -> Machine:
    return Machine(
        cpu="one",
        instruction_sets=(),
        is_arm=is_arm,
        has_vnni=has_vnni,
        onnxruntime="1",
        providers=(),
    )


@pytest.fixture
def old_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """An x86 without VNNI in place of this machine."""
    monkeypatch.setattr(machine, "here", cpu)


@pytest.mark.usefixtures("old_cpu")
@pytest.mark.parametrize(
    ("kind", "reduced", "wrong"),
    [
        (QuantType.QInt8, False, True),
        (QuantType.QInt8, True, False),
        (QuantType.QUInt8, False, False),
    ],
)
def test_the_stock_recipe_is_wrong_without_vnni_unless_it_leaves_a_bit(
    float_model: Path, tmp_path: Path, kind: Any, reduced: bool, wrong: bool
) -> None:
    path = tmp_path / "quantized.onnx"
    quantize_dynamic(float_model, path, weight_type=kind, reduce_range=reduced, per_channel=True)
    found = inspect(path, session=False)
    assert [one.code for one in found.hazards] == (["saturates"] if wrong else [])
    if wrong:
        assert found.hazards[0].severity == "wrong"
        assert found.hazards[0].layers == ("fc",)


@pytest.mark.usefixtures("old_cpu")
@pytest.mark.parametrize(("most", "wrong"), [(64, False), (65, True)])
def test_saturation_begins_where_pairs_of_products_pass_16_bits(
    make_onnx: Any, most: int, wrong: bool
) -> None:
    """255 × 64 + 255 × 64 = 32,640; with 65 it is 33,150, and 16 bits end at 32,767."""
    weight = np.zeros((64, 32), np.int8)
    weight[-1, -1] = -most
    nodes = [
        helper.make_node("DynamicQuantizeLinear", ["x"], ["u", "s", "z"]),
        helper.make_node("MatMulInteger", ["u", "w", "z"], ["i"], name="fc"),
        helper.make_node("Cast", ["i"], ["y"], to=1),
    ]
    found = inspect(make_onnx(nodes, {"w": weight}), session=False)
    assert ("saturates" in {one.code for one in found.hazards}) == wrong


@pytest.mark.skipif(
    machine.here().has_vnni or machine.here().is_arm, reason="this CPU multiplies exactly"
)
def test_what_is_called_wrong_is_wrong_here(make_onnx: Any) -> None:
    weight = np.full((64, 32), 127, np.int8)
    nodes = [
        helper.make_node("Cast", ["x"], ["u"], to=2),
        helper.make_node("MatMulInteger", ["u", "w"], ["i"]),
        helper.make_node("Cast", ["i"], ["y"], to=1),
    ]
    path = make_onnx(nodes, {"w": weight})
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    (products,) = session.run(None, {"x": np.full((1, 64), 255, np.float32)})
    assert (products != 64 * 255 * 127).all()


def test_an_embedding_in_float_beside_a_quantized_head(make_onnx: Any) -> None:
    table = np.random.default_rng(0).standard_normal((96, 64)).astype(np.float32)
    nodes = [
        helper.make_node("Cast", ["x"], ["ids"], to=7),
        helper.make_node("Gather", ["embed.weight", "ids"], ["rows"], name="/embed/Gather"),
        helper.make_node("ReduceMean", ["rows"], ["hidden"], axes=[1], keepdims=0),
        helper.make_node(
            "DequantizeLinear", ["head", "scale", "zero"], ["float"], axis=1, name="/head/dq"
        ),
        helper.make_node("MatMul", ["hidden", "float"], ["y"], name="/lm_head/MatMul"),
    ]
    arrays = {
        "embed.weight": table,
        "head": np.ones((64, 96), np.int8),
        "scale": np.ones(96, np.float32),
        "zero": np.zeros(96, np.int8),
    }
    path = make_onnx(nodes, arrays, size=(64, 96), opset=13)
    found = inspect(path, session=False)
    assert [one.code for one in found.hazards] == ["float-embedding", "stored-twice"]
    assert found.hazards[0].layers == ("embed",)
    assert found.hazards[1].layers == ("embed", "lm_head")


def test_one_code_a_byte_is_named_for_4_bits_and_not_for_8(make_checkpoint: Any) -> None:
    loose = inspect(make_checkpoint("w4a8"))
    assert [one.code for one in loose.hazards] == ["unpacked"]
    assert all(
        one.container_bits == 8
        for one in loose.quantized
        if set(one.layers) & set(loose.hazards[0].layers)
    )
    assert inspect(make_checkpoint("w8a8")).hazards == ()
    assert inspect(make_checkpoint("w4a16-g32")).hazards == ()


def test_metadata_that_a_later_tool_carried_over_is_not_trusted(
    make_export: Any, tmp_path: Path
) -> None:
    path = tmp_path / "later.onnx"
    quantize_dynamic(make_export("w8a8", "float") / "model.onnx", path, per_channel=True)
    found = inspect(path, session=False)
    assert found.quantship is not None
    assert found.quantship.lowering == "float"
    assert "metadata-differs" in {one.code for one in found.hazards}
