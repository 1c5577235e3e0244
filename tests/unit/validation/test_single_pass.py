"""Models that answer in one pass are fed with random numbers of the types that they declare."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from quantship.errors import QuantshipError, UsageError
from quantship.mlp.model import build_model
from quantship.validation.options import Options
from quantship.validation.report import Validation
from quantship.validation.run import validate

WIDTHS = (6, 8, 3)


def failed(found: Validation) -> dict[str, str]:
    return {check.name: check.detail for check in found.checks if not check.passed}


@pytest.fixture
def classifier(tmp_path: Path) -> Path:
    """A classifier's checkpoint."""
    path = tmp_path / "classifier"
    build_model(WIDTHS, seed=0).save_pretrained(path)
    return path


def as_onnx(
    path: Path,
    *,
    factor: float = 1.0,
    bias: float = 0.0,
    name: str = "features",
    kind: int = TensorProto.FLOAT,
    output: str = "logits",
) -> Path:
    """The same classifier as an ONNX file, its last weight multiplied by a factor."""
    model = build_model(WIDTHS, seed=0)
    state = {key: value.numpy() for key, value in model.state_dict().items()}
    state["layers.1.weight"] = state["layers.1.weight"] * np.float32(factor)
    state["layers.1.bias"] = state["layers.1.bias"] + np.float32(bias)
    nodes = [
        helper.make_node("Cast", [name], ["cast"], to=TensorProto.FLOAT),
        helper.make_node("Gemm", ["cast", "layers.0.weight", "layers.0.bias"], ["a"], transB=1),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Gemm", ["b", "layers.1.weight", "layers.1.bias"], [output], transB=1),
    ]
    graph = helper.make_graph(
        nodes,
        "classifier",
        [helper.make_tensor_value_info(name, kind, ["batch", WIDTHS[0]])],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, ["batch", WIDTHS[-1]])],
        [numpy_helper.from_array(np.ascontiguousarray(one), key) for key, one in state.items()],
    )
    opset = helper.make_opsetid("", 21)
    onnx.save(helper.make_model(graph, opset_imports=[opset], ir_version=10), path)
    return path


def test_a_classifier_and_its_export_are_equal(classifier: Path, tmp_path: Path) -> None:
    found = validate(classifier, as_onnx(tmp_path / "any.onnx"))
    assert found.equal
    (logits,) = found.outputs
    assert (logits.output, logits.positions, logits.top1_agreement) == ("logits", 8, 1)
    assert 0 < logits.max_abs_diff < 1e-5 or logits.max_abs_diff == 0
    assert "features [2, 6]" in found.inputs
    assert validate(classifier, classifier).outputs[0].max_abs_diff == 0


def test_a_bias_of_another_size_is_seen_in_the_outputs(classifier: Path, tmp_path: Path) -> None:
    found = validate(as_onnx(tmp_path / "any.onnx", bias=0.01), classifier)
    assert failed(found).keys() >= {"logits"}
    assert found.outputs[0].mean_abs_diff == pytest.approx(0.01, rel=1e-3)
    assert validate(as_onnx(tmp_path / "x.onnx"), classifier, Options(tolerance=0.1)).equal


def test_a_weight_that_differs_in_one_of_two_graphs_is_named(tmp_path: Path) -> None:
    one, other = as_onnx(tmp_path / "a.onnx"), as_onnx(tmp_path / "b.onnx", factor=1 + 2e-7)
    found = validate(one, other)
    assert failed(found).keys() == {"stored numbers"}
    assert "layers.1.weight: tensor, at [0, 0]" in failed(found)["stored numbers"]
    assert validate(one, other, Options(outputs_only=True)).equal


@pytest.mark.parametrize(
    ("other", "words"),
    [
        ({"name": "x"}, "only A has the input 'features'; only B has the input 'x'"),
        ({"kind": TensorProto.DOUBLE}, "'features' is float32 in A and float64 in B"),
    ],
)
def test_other_inputs_are_named(tmp_path: Path, other: dict[str, Any], words: str) -> None:
    found = validate(as_onnx(tmp_path / "a.onnx"), as_onnx(tmp_path / "b.onnx", **other))
    assert failed(found) == {"inputs": words}


def test_where_each_has_one_output_its_name_does_not_matter(
    classifier: Path, tmp_path: Path
) -> None:
    assert validate(classifier, as_onnx(tmp_path / "a.onnx", output="scores")).equal


def test_an_input_that_nobody_can_draw_is_refused(tmp_path: Path) -> None:
    path = as_onnx(tmp_path / "a.onnx")
    model = onnx.load(path)
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.STRING
    onnx.save(model, path)
    with pytest.raises(QuantshipError, match="'features' of A is of STRING"):
        validate(path, path)


def test_a_decoder_and_a_classifier_cannot_be_compared(models: Any, classifier: Path) -> None:
    with pytest.raises(UsageError, match="A continues texts and B answers in one pass"):
        validate(models("float"), classifier)


def test_an_encoder_reads_tokens_of_its_vocabulary(tmp_path: Path) -> None:
    from transformers import BertConfig, BertForSequenceClassification

    config = BertConfig(
        vocab_size=50,
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=32,
    )
    path = tmp_path / "encoder"
    BertForSequenceClassification(config).save_pretrained(path)
    found = validate(path, path)
    assert found.equal
    assert "input_ids [2, 16], attention_mask [2, 16]" in found.inputs
    assert found.outputs[0].deviation > 0


def test_a_decoder_of_another_tool_is_fed_with_an_empty_cache(models: Any, copy: Any) -> None:
    path = copy(models("onnx float"))
    (path / "genai_config.json").unlink()
    found = validate(path, path / "model.onnx")
    assert found.equal
    assert "past_key_values.0.key [2, 2, 0, 32]" in found.inputs
    assert next(one for one in found.outputs if one.output == "logits").positions == 4 * 2 * 16
