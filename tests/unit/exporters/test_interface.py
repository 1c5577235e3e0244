from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest
from onnxruntime.capi.onnxruntime_pybind11_state import InvalidArgument

from quantship.exporters.decoder import export
from quantship.exporters.interface import LEFT_PADDING, declare_cache, refuse_left_padding
from quantship.exporters.lowering import Lowering

pytestmark = pytest.mark.usefixtures("one_thread")

LAYERS, HEADS, WIDTH = 2, 2, 32


def run(path: Path, mask: list[list[int]], past: int = 0) -> Any:
    """Logits of random tokens under a mask."""
    options = ort.SessionOptions()
    options.log_severity_level = 4
    session = ort.InferenceSession(path / "model.onnx", options)
    attention_mask = np.array(mask, np.int64)
    batch, total = attention_mask.shape
    ids = np.random.default_rng(0).integers(4, 260, (batch, total - past))
    empty = np.zeros((batch, HEADS, past, WIDTH), np.float32)
    names = [
        f"past_key_values.{layer}.{kind}" for layer in range(LAYERS) for kind in ("key", "value")
    ]
    feeds = {"input_ids": ids, "attention_mask": attention_mask, **dict.fromkeys(names, empty)}
    return session.run(["logits"], feeds)[0]


@pytest.fixture(scope="module", params=["nbits", "hybrid", "integer"])
def exported(checkpoint_dir: Path, tmp_path_factory: pytest.TempPathFactory, request: Any) -> Path:
    """A decoder; not to be written to."""
    out = tmp_path_factory.mktemp("exported")
    lowering: Lowering = request.param
    export(checkpoint_dir, lowering, "w8a8", out, "x86")
    return out


def test_the_cache_states_its_shape(exported: Path) -> None:
    graph = ir.load(exported / "model.onnx").graph
    cache = [
        value
        for value in (*graph.inputs, *graph.outputs)
        if str(value.name).startswith(("past_key_values", "present"))
    ]
    assert len(cache) == 2 * 2 * LAYERS
    for value in cache:
        assert value.shape is not None
        assert (value.shape[1], value.shape[3]) == (HEADS, WIDTH)
        assert all(isinstance(value.shape[axis], ir.SymbolicDim) for axis in (0, 2))


@pytest.mark.parametrize("length", [3, 24])  # fewer and more tokens than make a prompt in hybrid
def test_padding_on_the_left_fails_and_says_why(exported: Path, length: int) -> None:
    padded = [[0] + [1] * (length - 1), [1] * length]
    with pytest.raises(InvalidArgument, match=LEFT_PADDING):
        run(exported, padded)
    with pytest.raises(InvalidArgument, match=LEFT_PADDING):
        run(exported, [[0] * length])
    with pytest.raises(InvalidArgument, match=LEFT_PADDING):
        run(exported, padded, past=length - 1)


@pytest.mark.parametrize("length", [3, 24])
def test_padding_on_the_right_changes_nothing_before_it(exported: Path, length: int) -> None:
    whole = run(exported, [[1] * length] * 2)
    padded = run(exported, [[1] * length, [1] * (length - 1) + [0]])
    assert np.array_equal(whole[0], padded[0])
    assert np.array_equal(whole[1, :-1], padded[1, :-1])


def test_a_graph_without_such_attention_stays_as_it_is() -> None:
    integers = ir.TensorType(ir.DataType.INT64)
    mask, ids = (
        ir.Value(name=name, shape=ir.Shape(["batch", "total"]), type=integers)
        for name in ("attention_mask", "input_ids")
    )
    node = ir.node("Add", [mask, ids])
    graph = ir.Graph([mask, ids], node.outputs, nodes=[node], opset_imports={"": 21})
    refuse_left_padding(graph)
    declare_cache(graph, 8)
    assert list(graph) == [node]
    assert not graph.initializers
    assert mask.shape == ir.Shape(["batch", "total"])
