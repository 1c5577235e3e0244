from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM

from quantship.errors import QuantshipError
from quantship.exporters import decoder
from quantship.models import (
    from_directory,
    from_hub,
    load_float,
    load_tokenizer,
    num_parameters,
    read_config,
    weight_bytes,
)
from quantship.quant.convert import convert
from quantship.quant.modules import prepare_qat
from quantship.quant.scheme import SCHEMES

pytestmark = pytest.mark.usefixtures("one_thread")


def test_a_directory_is_known_by_its_content(tiny_model_dir: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(tiny_model_dir, copy)
    artifact = from_directory(tiny_model_dir)
    assert (artifact.path, artifact.stage) == (tiny_model_dir.resolve(), "model")
    assert from_directory(copy).fingerprint == artifact.fingerprint
    (copy / ".cache").write_text("hidden")
    assert from_directory(copy).fingerprint == artifact.fingerprint
    config = copy / "config.json"
    config.write_text(config.read_text() + "\n")
    assert from_directory(copy).fingerprint != artifact.fingerprint


def test_a_link_is_followed_to_where_the_model_lies(tiny_model_dir: Path, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(tiny_model_dir)
    assert from_directory(link) == from_directory(tiny_model_dir)


def test_a_hub_model_is_known_by_its_commit_without_being_downloaded() -> None:
    one, same = (from_hub("a/b", "1" * 40, download=False) for _ in range(2))
    other = from_hub("a/b", "2" * 40, download=False)
    assert one == same
    assert one.fingerprint != other.fingerprint
    assert one.facts == {"hub": "a/b", "commit": "1" * 40}
    assert from_hub("a/c", "1" * 40, download=False).fingerprint != one.fingerprint


def test_weights_are_loaded_in_float32_whatever_they_are_stored_in(
    tiny_model_dir: Path, tmp_path: Path
) -> None:
    halved = AutoModelForCausalLM.from_pretrained(tiny_model_dir, dtype=torch.bfloat16)
    halved.save_pretrained(tmp_path)
    model = load_float(tmp_path)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert {parameter.device.type for parameter in model.parameters()} == {"cpu"}
    expected = halved.state_dict()
    assert all(
        torch.equal(value, expected[key].float()) for key, value in model.state_dict().items()
    )


def test_a_quantized_model_is_not_loaded_as_a_float_one(tiny_model: Any, tmp_path: Path) -> None:
    convert(prepare_qat(tiny_model, SCHEMES["w8a8"]), tmp_path)
    with pytest.raises(QuantshipError, match="quantized model") as caught:
        load_float(tmp_path)
    assert str(tmp_path) in str(caught.value)


def test_the_tokenizer_is_the_one_that_was_saved(tiny_model_dir: Path, tiny_tokenizer: Any) -> None:
    text = "Grüße, <|im_start|>user\n 1+1=2"
    assert load_tokenizer(tiny_model_dir)(text)["input_ids"] == tiny_tokenizer(text)["input_ids"]


def test_the_config_is_the_file(tiny_model_dir: Path) -> None:
    assert read_config(tiny_model_dir) == json.loads((tiny_model_dir / "config.json").read_text())


def test_parameters_are_counted_as_stored(tiny_model_dir: Path, tiny_model: Any) -> None:
    assert num_parameters(tiny_model_dir) == tiny_model.num_parameters()


def test_bytes_and_numbers_of_all_shards_count_and_nothing_else(tmp_path: Path) -> None:
    save_file({"a": torch.zeros(3, 4), "b": torch.zeros(())}, tmp_path / "one.safetensors")
    save_file({"c": torch.zeros(5, 0), "d": torch.zeros(7)}, tmp_path / "two.safetensors")
    for name in ("tokenizer.json", "model.bin", "model.onnx_data_not", "notes.txt"):
        (tmp_path / name).write_bytes(b"x" * 1000)
    assert num_parameters(tmp_path) == 12 + 1 + 0 + 7
    sizes = [path.stat().st_size for path in tmp_path.glob("*.safetensors")]
    assert weight_bytes(tmp_path) == sum(sizes)


def test_onnx_counts_with_its_external_data(tiny_model_dir: Path, tmp_path: Path) -> None:
    decoder.export(tiny_model_dir, "float", None, tmp_path, "x86")
    parts = [tmp_path / "model.onnx", tmp_path / "model.onnx_data"]
    assert weight_bytes(tmp_path) == sum(part.stat().st_size for part in parts)
    assert weight_bytes(tmp_path) > weight_bytes(tiny_model_dir)  # and the rotary tables


def test_a_checkpoint_of_8_bits_takes_a_quarter(tiny_model: Any, tmp_path: Path) -> None:
    convert(prepare_qat(tiny_model, SCHEMES["w8a8"]), tmp_path)
    float_bytes = 4 * tiny_model.num_parameters()
    assert 3.3 < float_bytes / weight_bytes(tmp_path) < 4
    assert num_parameters(tmp_path) > tiny_model.num_parameters()  # scales and zero points count
