from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quantship.exporters.file_names import FileName
from quantship.publishing.onnx_files import (
    Export,
    genai_config,
    model_files,
    with_browser_words,
)
from quantship.publishing.uploads import Upload, summed, with_sums


def export(maker: object, stem: str, dtype: str | None = "q4") -> Export:
    path = maker.model(stem, "onnx", "w8a8")  # type: ignore[attr-defined]
    return Export(path, FileName(stem, dtype))


def outputs(file: Path) -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    return [session.run(None, {"cond": np.array(cond)})[0] for cond in (True, False)]


def test_a_renamed_model_finds_its_data_wherever_it_refers_to_them(
    maker: object, tmp_path: Path
) -> None:
    one = export(maker, "model_q4")
    out = tmp_path / "out"
    out.mkdir()
    for upload in model_files(one, "out"):
        (tmp_path / upload.path).write_bytes(upload.read())
    assert sorted(file.name for file in out.iterdir()) == ["model_q4.onnx", "model_q4.onnx_data"]
    assert b"model.onnx_data" not in (out / "model_q4.onnx").read_bytes()
    ours, theirs = outputs(one.path / "model.onnx"), outputs(out / "model_q4.onnx")
    assert all(np.array_equal(a, b) for a, b in zip(ours, theirs, strict=True))
    assert not np.array_equal(*ours)


def test_a_model_that_keeps_its_name_keeps_its_bytes(maker: object) -> None:
    one = export(maker, "model", "fp32")
    assert [upload.source for upload in model_files(one)] == [
        one.path / "model.onnx",
        one.path / "model.onnx_data",
    ]


def test_a_model_in_one_file_is_that_file(maker: object) -> None:
    one = export(maker, "model_q4")
    (one.path / "model.onnx_data").unlink()
    (upload,) = model_files(one)
    assert (upload.path, upload.source) == ("onnx/model_q4.onnx", one.path / "model.onnx")


def test_writing_the_graph_twice_gives_the_same_bytes(maker: object) -> None:
    one = export(maker, "model_q4")
    first, second = (model_files(one)[0].read() for _ in range(2))
    assert first == second


def test_genai_is_told_the_files_name(maker: object) -> None:
    config = json.loads(genai_config(export(maker, "model_int8")))
    assert config["model"] == {"decoder": {"filename": "model_int8.onnx"}, "type": "llama"}


def test_transformers_js_is_told_of_every_model(maker: object) -> None:
    first, second = export(maker, "model_quantized", "q8"), export(maker, "model_w2", None)
    (second.path / "model.onnx_data").unlink()
    config = json.loads(with_browser_words(first.path / "config.json", [first, second]))
    assert config["model_type"] == "llama"
    assert config["transformers.js_config"] == {
        "dtype": "q8",
        "use_external_data_format": {"model_quantized.onnx": 1},
    }
    alone = json.loads(with_browser_words(first.path / "config.json", [second]))
    assert alone["transformers.js_config"] == {}


paths = st.text(st.characters(categories=("L", "N"), include_characters="._-"), min_size=1)


@given(st.dictionaries(paths.filter(lambda path: path != "SHA256SUMS"), st.binary(), max_size=5))
def test_sums_list_every_file_once_and_are_read_back(files: dict[str, bytes]) -> None:
    every = with_sums(Upload(path, data) for path, data in files.items())
    assert every[-1].path == "SHA256SUMS"
    assert set(summed(every[-1].read().decode())) == files.keys()


def test_two_files_for_one_path_are_a_bug() -> None:
    with pytest.raises(AssertionError):
        with_sums([Upload("a", b""), Upload("a", b"")])
