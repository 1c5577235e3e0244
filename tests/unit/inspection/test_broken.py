"""What is said of files that are broken, missing or not meant."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from safetensors.numpy import save_file

import quantship
from quantship.errors import QuantshipError, UsageError
from quantship.inspection.inspect import inspect
from quantship.inspection.locate import locate
from quantship.inspection.safetensors_header import read


@pytest.fixture
def external(make_onnx: Any) -> Path:
    """A model whose weight lies in model.onnx.data."""
    weight = np.ones((64, 32), np.float32)
    node = helper.make_node("MatMul", ["x", "fc.weight"], ["y"])
    path: Path = make_onnx([node], {"fc.weight": weight}, external=True)
    return path


@pytest.fixture
def tensors(tmp_path: Path) -> Path:
    """A safetensors file with one matrix."""
    path = tmp_path / "model.safetensors"
    save_file({"fc.weight": np.ones((64, 32), np.float32)}, path)
    return path


def test_external_data_that_is_cut_off(external: Path) -> None:
    assert inspect(external).sizes.weight_bytes == 64 * 32 * 4
    data = external.with_name("model.onnx.data")
    data.write_bytes(data.read_bytes()[:-1])
    with pytest.raises(QuantshipError, match=r"model.onnx.data is cut off.*fc\.weight"):
        inspect(external)


def test_external_data_that_is_missing(external: Path) -> None:
    external.with_name("model.onnx.data").unlink()
    with pytest.raises(QuantshipError, match=r"there is no .*model\.onnx\.data"):
        inspect(external)


@pytest.mark.parametrize("place", ["../elsewhere", "/etc/passwd"])
def test_external_data_outside_of_the_directory(external: Path, place: str) -> None:
    model = onnx.load(external, load_external_data=False)
    (entry,) = [one for one in model.graph.initializer[0].external_data if one.key == "location"]
    entry.value = place
    external.write_bytes(model.SerializeToString())
    with pytest.raises(QuantshipError, match="outside of the model's directory"):
        inspect(external)


@pytest.mark.parametrize("content", [b"", b"hello world" * 10, b"\x08\x0a"])
def test_a_file_that_is_no_onnx(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    with pytest.raises(QuantshipError, match="is no ONNX file"):
        inspect(path)


def test_an_onnx_file_that_is_cut_off(float_model: Path) -> None:
    float_model.write_bytes(float_model.read_bytes()[:-100])
    with pytest.raises(QuantshipError, match="is no ONNX file, or is cut off"):
        inspect(float_model)


@pytest.mark.parametrize("content", [b"", b"\xff" * 8, b"\x10" + b"\0" * 7 + b"no json at all!!"])
def test_a_file_that_is_no_safetensors(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    with pytest.raises(QuantshipError, match="is no safetensors file"):
        inspect(path)


@pytest.mark.parametrize("kept", [100, -1])
def test_a_safetensors_file_that_is_cut_off(tensors: Path, kept: int) -> None:
    tensors.write_bytes(tensors.read_bytes()[:kept])
    with pytest.raises(QuantshipError, match="cut off"):
        inspect(tensors)


def test_headers_agree_with_the_library(tensors: Path) -> None:
    entries, _ = read(tensors)
    one = entries["fc.weight"]
    assert (one.dtype, one.shape, one.size_bytes) == ("float32", (64, 32), 64 * 32 * 4)
    assert (one.read() == 1).all()


def test_an_empty_directory_and_a_missing_one(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="holds neither"):
        inspect(tmp_path)
    with pytest.raises(UsageError, match="there is no"):
        inspect(tmp_path / "gone")
    (tmp_path / "pytorch_model.bin").touch()
    with pytest.raises(UsageError, match=r"pytorch_model\.bin, is not read here"):
        inspect(tmp_path)


def test_both_kinds_in_one_directory_and_each_by_name(float_model: Path, tensors: Path) -> None:
    with pytest.raises(UsageError, match=r"both a checkpoint and ONNX(.|\n)*float\.onnx"):
        inspect(float_model.parent)
    assert inspect(float_model).kind == "onnx"
    assert inspect(tensors).kind == "safetensors"


def test_several_onnx_files_are_listed(float_model: Path) -> None:
    float_model.with_name("other.onnx").write_bytes(float_model.read_bytes())
    with pytest.raises(UsageError, match=r"2 ONNX models(.|\n)*float\.onnx(.|\n)*other\.onnx"):
        inspect(float_model.parent)


def test_a_folder_onnx_is_found_beside_the_tokenizer(float_model: Path, tmp_path: Path) -> None:
    repository = tmp_path / "repository"
    (repository / "onnx").mkdir(parents=True)
    float_model.rename(repository / "onnx" / "model.onnx")
    (repository / "config.json").write_text("{}")
    found = locate(repository)
    assert found.files == (repository / "onnx" / "model.onnx",)
    assert found.config == repository / "config.json"


def test_shards_are_one_model_and_a_missing_one_is_named(tmp_path: Path) -> None:
    names = [f"model-0000{part}-of-00002.safetensors" for part in (1, 2)]
    for part, name in enumerate(names):
        save_file({f"layers.{part}.weight": np.ones((4, 4), np.float32)}, tmp_path / name)
    index = {"weight_map": {f"layers.{part}.weight": name for part, name in enumerate(names)}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    assert inspect(tmp_path).sizes.num_parameters == 32
    (tmp_path / names[1]).unlink()
    with pytest.raises(QuantshipError, match=names[1]):
        inspect(tmp_path)


def test_other_formats_are_refused_by_name(tmp_path: Path) -> None:
    for name, words in (("model.gguf", "GGUF"), ("model.pte", "ExecuTorch"), ("x.txt", "neither")):
        (tmp_path / name).touch()
        with pytest.raises(UsageError, match=words):
            inspect(tmp_path / name)


def test_a_configuration_that_is_no_json(tensors: Path) -> None:
    tensors.with_name("config.json").write_text("{")
    with pytest.raises(QuantshipError, match=r"config\.json is no JSON"):
        inspect(tensors)


def test_versions_that_the_runtime_does_not_know(make_onnx: Any) -> None:
    node = helper.make_node("Relu", ["x"], ["y"])
    new = inspect(make_onnx([node], {}, size=(4, 4), opset=99))
    assert [one.code for one in new.hazards] == ["too-new"]
    assert "opset 99" in new.hazards[0].message
    assert inspect(make_onnx([node], {}, size=(4, 4))).hazards == ()
    assert "too-new" in {
        one.code for one in inspect(make_onnx([node], {}, size=(4, 4), ir_version=99)).hazards
    }


def test_an_operator_that_the_runtime_does_not_know(make_onnx: Any) -> None:
    node = helper.make_node("NoSuchOperator", ["x"], ["y"])
    found = inspect(make_onnx([node], {}, size=(4, 4)))
    assert found.fusion is not None
    assert found.fusion.status == "failed"
    assert [one.code for one in found.hazards] == ["does-not-load"]
    assert "NoSuchOperator" in found.hazards[0].message
    skipped = inspect(make_onnx([node], {}, size=(4, 4)), session=False)
    assert skipped.hazards == ()


def test_a_session_that_would_not_fit_into_memory_is_not_begun(
    float_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import psutil

    free = psutil.virtual_memory()._replace(available=1000)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: free)
    found = inspect(float_model)
    assert found.fusion is not None
    assert found.fusion.status == "skipped"
    assert "are free" in (found.fusion.reason or "")
    assert found.hazards == ()


MEASURE = """
import sys
from pathlib import Path
from quantship.hardware import peak_rss_bytes
from quantship.inspection.inspect import inspect
inspect(Path(sys.argv[1]), session=False)
before = peak_rss_bytes()
inspect(Path(sys.argv[2]), session=False)
print(peak_rss_bytes() - before)
"""


def test_a_large_model_is_not_loaded(float_model: Path, make_onnx: Any) -> None:
    """Codes of 512 MB, and scales of 64 MB that must be looked at to know what shares one."""
    rows, width, block = 1 << 13, 1 << 16, 32
    node = helper.make_node(
        "MatMulNBits",
        ["x", "codes", "scales"],
        ["y"],
        domain="com.microsoft",
        K=width,
        N=rows,
        bits=8,
        block_size=block,
        accuracy_level=4,
    )
    path = make_onnx([node], {}, name="large.onnx", size=(width, rows))
    model = onnx.load(path)
    shapes = {
        "codes": (TensorProto.UINT8, [rows, width // block, block]),
        "scales": (TensorProto.FLOAT, [rows, width // block]),
    }
    offset = 0
    for name, (dtype, shape) in shapes.items():
        length = int(np.prod(shape)) * (4 if dtype == TensorProto.FLOAT else 1)
        tensor = onnx.TensorProto(name=name, data_type=dtype, dims=shape)
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in (("location", "large.data"), ("offset", offset), ("length", length)):
            tensor.external_data.add(key=key, value=str(value))
        model.graph.initializer.append(tensor)
        offset += length
    path.write_bytes(model.SerializeToString())
    with path.with_name("large.data").open("wb") as data:
        data.truncate(offset)  # a hole, which takes no disk
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, str(float_model), str(path)],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"PYTHONPATH": str(Path(quantship.__file__).parents[1])},
    )
    assert int(done.stdout) < 100_000_000
