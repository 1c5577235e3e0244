from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from quantship.exporters.decoder import export
from quantship.exporters.rotation import compute_tables

pytestmark = pytest.mark.usefixtures("one_thread")

SCALED = {
    "rope_type": "llama3",
    "rope_theta": 500000.0,
    "factor": 32.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}
YARN = {
    "rope_type": "yarn",
    "rope_theta": 10000.0,
    "factor": 4.0,
    "original_max_position_embeddings": 4096,
}


def decoder(**rotation: Any) -> Any:
    config = LlamaConfig(
        hidden_size=64,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=2,
        vocab_size=32,
        rope_parameters=rotation or {"rope_type": "default", "rope_theta": 10000.0},
    )
    return LlamaForCausalLM(config)


def tables(model: Any, length: int) -> tuple[np.ndarray, np.ndarray]:
    with torch.inference_mode():
        cos, sin = model.base_model.rotary_emb(torch.zeros(1), torch.arange(length)[None])
    half = cos.shape[-1] // 2
    return cos[0, :, :half].numpy().copy(), sin[0, :, :half].numpy().copy()


def graph_of(cos: np.ndarray, sin: np.ndarray) -> ir.Model:
    """A graph that returns its tables."""
    values, outputs, nodes = [], [], []
    for name, table in (("cos_cache", cos), ("sin_cache", sin)):
        value = ir.Value(name=name, const_value=ir.tensor(table, name=name))
        value.shape, value.dtype = ir.Shape(table.shape), ir.DataType.FLOAT
        values.append(value)
        nodes.append(ir.node("Identity", [value], outputs=[ir.Value(name=f"{name}/out")]))
        outputs.append(nodes[-1].outputs[0])
        outputs[-1].dtype, outputs[-1].shape = ir.DataType.FLOAT, ir.Shape(table.shape)
    graph = ir.Graph(
        [], outputs, nodes=nodes, initializers=values, opset_imports={"": 21}, name="tables"
    )
    return ir.Model(graph, ir_version=10)


@pytest.mark.parametrize("rotation", [{}, SCALED, YARN], ids=["default", "llama3", "yarn"])
def test_tables_are_computed_when_the_model_is_loaded(rotation: dict[str, Any]) -> None:
    model, length = decoder(**rotation), 70_000
    cos, sin = tables(model, length)
    made = graph_of(cos, sin)
    compute_tables(made.graph, model)
    assert not {"cos_cache", "sin_cache"} & set(made.graph.initializers)
    content = ir.to_proto(made).SerializeToString()
    assert len(content) < 20_000
    session = ort.InferenceSession(content)
    for ours, theirs in zip(session.run(None, {}), (cos, sin), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=2.5e-7)


def test_tables_that_the_model_does_not_make_stay() -> None:
    model = decoder()
    cos, sin = tables(model, 100)
    cos[7, 3] = np.nextafter(cos[7, 3], np.float32(2))
    made = graph_of(cos, sin)
    compute_tables(made.graph, model)
    assert set(made.graph.initializers) & {"cos_cache", "sin_cache"} == {"cos_cache"}


def test_a_model_without_a_rotation_is_left_alone() -> None:
    made = graph_of(*tables(decoder(), 10))
    compute_tables(made.graph, torch.nn.Module())
    assert {"cos_cache", "sin_cache"} <= set(made.graph.initializers)


def test_exports_hold_no_tables(checkpoint_dir: Path, tmp_path: Path) -> None:
    export(checkpoint_dir, "nbits", "w8a8", tmp_path, "x86")
    graph = ir.load(tmp_path / "model.onnx").graph
    assert not [name for name in graph.initializers if name in ("cos_cache", "sin_cache")]
