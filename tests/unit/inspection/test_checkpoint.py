"""Checkpoints and safetensors files that are not quantship's exports."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file
from torch import nn

import quantship
from quantship.inspection.checkpoint_config import reason
from quantship.inspection.inspect import inspect
from quantship.plain import files

pytestmark = pytest.mark.usefixtures("one_thread")


def test_a_float_checkpoint_says_that_nothing_is_quantized(tiny_model_dir: Path) -> None:
    found = inspect(tiny_model_dir)
    assert found.kind == "checkpoint"
    assert found.checkpoint is not None
    assert found.checkpoint.quantization == "none"
    assert found.quantized == ()
    assert {one.reason for one in found.floats} == {"nothing in this model is quantized"}
    assert found.sizes.bits_per_parameter == pytest.approx(32)
    assert found.hazards == ()


def test_a_tied_head_is_named_with_the_embedding(tiny_model_dir: Path) -> None:
    found = inspect(tiny_model_dir)
    (embedding,) = [one for one in found.floats if one.role == "embedding"]
    assert found.checkpoint is not None
    tied = json.loads((tiny_model_dir / "config.json").read_text())["tie_word_embeddings"]
    assert found.checkpoint.tied == tied
    assert embedding.layer == "model.embed_tokens" + (" + lm_head" if tied else "")


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)
        self.first, self.second = nn.Linear(32, 32), nn.Linear(32, 32)
        self.second.weight = self.first.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        pooled = self.conv(x).mean((2, 3))
        result: torch.Tensor = self.second(self.first(pooled.repeat(1, 4)))
        return result


def test_a_file_of_save_with_convolutions_and_shared_weights(tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = Net()
    batches = [torch.randn(2, 3, 16, 16) for _ in range(2)]
    quantized = quantship.quantize(module, "w8a8-static", batches)
    path = tmp_path / "net.safetensors"
    quantship.save(quantized, path)
    found = inspect(path)
    assert found.kind == "safetensors"
    layers = {name: one for one in found.quantized for name in one.layers}
    assert layers.keys() == {"conv", "first", "second"}
    convolution = layers["conv"]
    assert convolution.num_parameters == 8 * 3 * 3 * 3
    assert convolution.uses[0].does == "convolves"
    assert "static" in convolution.uses[0].activation
    assert "static" in layers["first"].uses[0].activation
    total = sum(one.size_bytes for one in (*found.quantized, *found.floats))
    assert total + found.sizes.other_bytes == found.sizes.weight_bytes


def test_matrices_that_layers_share_are_shown_once_with_both(tmp_path: Path) -> None:
    module = nn.Sequential(nn.Linear(64, 64), nn.Linear(64, 64))
    module[1].weight = module[0].weight
    quantized = quantship.quantize(module, "w8a16")
    path = tmp_path / "shared.safetensors"
    quantship.save(quantized, path)
    (one,) = inspect(path).quantized
    assert one.layers == ("0", "1")
    assert one.num_parameters == 64 * 64


def test_the_names_of_metadata_are_those_of_save() -> None:
    from quantship.inspection import packed_codes

    assert (packed_codes.ALIASES, packed_codes.CONVOLUTIONS, packed_codes.PREFIX) == (
        files.ALIASES,
        files.CONVOLUTIONS,
        files.PREFIX,
    )


def test_gptq_codes_are_understood_as_far_as_they_say(tmp_path: Path) -> None:
    width, rows, group = 128, 64, 32
    save_file(
        {
            "model.layers.0.mlp.up_proj.qweight": np.ones((width // 8, rows), np.int32),
            "model.layers.0.mlp.up_proj.qzeros": np.ones((width // group, rows // 8), np.int32),
            "model.layers.0.mlp.up_proj.scales": np.ones((width // group, rows), np.float16),
            "model.layers.0.mlp.up_proj.g_idx": np.ones(width, np.int32),
            "model.norm.weight": np.ones(width, np.float16),
        },
        tmp_path / "model.safetensors",
    )
    said = {"quant_method": "gptq", "bits": 4, "group_size": group, "sym": True}
    (tmp_path / "config.json").write_text(json.dumps({"quantization_config": said}))
    found = inspect(tmp_path)
    (one,) = found.quantized
    assert one.layers == ("model.layers.0.mlp.up_proj",)
    assert (one.bits, one.container_bits, one.group_size, one.symmetric) == (4, 4, group, True)
    assert one.shape == (rows, width)
    assert one.uses[0].operator == "gptq"
    assert found.sizes.num_parameters == width * rows + width
    assert found.checkpoint is not None
    assert found.checkpoint.quantization == "gptq: 4 bits"


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"modules_to_not_convert": ["lm_head"]}, "lists 'lm_head' in modules_to_not_convert"),
        ({"include_input_output_embeddings": False}, "leaves embedding and head out"),
        ({}, "the file does not say why"),
    ],
)
def test_the_configuration_says_why_a_head_is_in_float(given: Any, words: str) -> None:
    config = {"quantization_config": {"quant_method": "torchao", **given}}
    assert words in reason("lm_head", "head", config, quantized=True)


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ({"lm_head": None, "_default": {"_type": "X"}}, "says none for 'lm_head'"),
        ({r"re:.*\.q_proj": {"_type": "X"}}, "no entry of quantization_config fits its name"),
        ({r"re:lm_.*": None}, r"says none for 're:lm_.*'"),
    ],
)
def test_entries_by_name_say_why_a_layer_is_in_float(entries: Any, words: str) -> None:
    inner = {"default": {"_data": {"fqn_to_config": entries}, "_type": "FqnToConfig"}}
    config = {"quantization_config": {"quant_method": "torchao", "quant_type": inner}}
    assert words in reason("lm_head", "head", config, quantized=True)


def test_a_scheme_that_leaves_the_embedding_out_shows_in_the_checkpoint(
    make_checkpoint: Any,
) -> None:
    found = inspect(make_checkpoint("w8a8-linear"))
    (embedding,) = [one for one in found.floats if one.role == "embedding"]
    assert "quantization_config" in embedding.reason
    assert "float-embedding" in {one.code for one in found.hazards}
