from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from quantship.artifact import digest_file
from quantship.provenance.contents import digest_graph, digest_tensors, digests

Tensors = dict[str, np.ndarray[Any, Any]]
KINDS = {"float32": "F32", "int8": "I8", "uint8": "U8"}


def write(path: Path, tensors: Tensors, metadata: dict[str, str] | None = None) -> Path:
    """A safetensors file with its tensors in the order that they are given in."""
    header: dict[str, Any] = {} if metadata is None else {"__metadata__": metadata}
    body = b""
    for name, tensor in tensors.items():
        raw = tensor.tobytes()
        header[name] = {
            "dtype": KINDS[str(tensor.dtype)],
            "shape": list(tensor.shape),
            "data_offsets": [len(body), len(body) + len(raw)],
        }
        body += raw
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + body)
    return path


@pytest.fixture
def tensors() -> Tensors:
    return {
        "b": np.arange(6, dtype=np.float32).reshape(2, 3),
        "a": np.arange(4, dtype=np.int8),
        "big": np.zeros(2_000_000, np.uint8),
    }


def test_order_and_metadata_of_tensors_do_not_count(tmp_path: Path, tensors: Tensors) -> None:
    one = write(tmp_path / "one.safetensors", tensors)
    other = dict(reversed(tensors.items()))
    two = write(tmp_path / "two.safetensors", other, {"made": "later"})
    assert digest_file(one) != digest_file(two)
    assert digest_tensors(one) == digest_tensors(two)


@pytest.mark.parametrize(
    "change",
    [
        {"a": np.array([0, 1, 2, 4], np.int8)},
        {"a": np.arange(4, dtype=np.uint8)},
        {"b": np.arange(6, dtype=np.float32).reshape(3, 2)},
        {"big": np.append(np.zeros(1_999_999, np.uint8), np.uint8(1))},
        {"c": np.zeros(0, np.int8)},
    ],
)
def test_every_change_of_a_tensor_counts(tmp_path: Path, tensors: Tensors, change: Tensors) -> None:
    one = write(tmp_path / "one.safetensors", tensors)
    two = write(tmp_path / "two.safetensors", tensors | change)
    assert digest_tensors(one) != digest_tensors(two)


def test_a_file_that_ends_too_early_is_told(tmp_path: Path, tensors: Tensors) -> None:
    path = write(tmp_path / "one.safetensors", tensors)
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(ValueError, match="ends before its tensors"):
        digest_tensors(path)


def graph(path: Path, weight: float = 1.0, made: str = "today", operator: str = "Mul") -> Path:
    value = helper.make_tensor_value_info
    whole = helper.make_graph(
        [helper.make_node(operator, ["x", "w"], ["y"])],
        "g",
        [value("x", TensorProto.FLOAT, [1])],
        [value("y", TensorProto.FLOAT, [1])],
        [numpy_helper.from_array(np.array([weight], np.float32), "w")],
    )
    model = helper.make_model(whole, opset_imports=[helper.make_opsetid("", 20)])
    helper.set_model_props(model, {"made": made})
    onnx.save(model, path)
    return path


def test_what_a_graph_computes_counts_and_when_it_was_made_does_not(tmp_path: Path) -> None:
    digest = digest_graph(graph(tmp_path / "a.onnx"))
    assert digest_graph(graph(tmp_path / "b.onnx", made="tomorrow")) == digest
    assert digest_graph(graph(tmp_path / "c.onnx", weight=1.0000001)) != digest
    assert digest_graph(graph(tmp_path / "d.onnx", operator="Add")) != digest


def test_a_directory_is_known_by_all_of_its_files_but_those_about_it(
    tmp_path: Path, tensors: Tensors
) -> None:
    (tmp_path / "eval").mkdir()
    (tmp_path / "eval" / "data.arrow").write_bytes(b"rows")
    for name in ("artifact.json", "lock.json", "export.log", ".hidden"):
        (tmp_path / name).write_text("today")
    path = write(tmp_path / "model.safetensors", tensors)
    assert digests(tmp_path) == {
        "eval/data.arrow": digest_file(tmp_path / "eval" / "data.arrow"),
        "model.safetensors": digest_tensors(path),
    }
