from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from quantship.blocks.mapped import release
from quantship.blocks.opening import copied, find_blocks, open_model
from quantship.models import float_class

Make = Callable[..., Path]


@pytest.mark.parametrize(
    ("kind", "place"),
    [
        ("llama", "model.layers"),
        ("llama-untied", "model.layers"),
        ("gemma3", "model.layers"),
        ("gpt2", "transformer.h"),
        ("bert", "bert.encoder.layer"),
    ],
)
def test_blocks_are_found_by_what_they_are(float_dir: Make, kind: str, place: str) -> None:
    opened = open_model(float_dir(kind))
    assert opened.blocks == tuple(f"{place}.{index}" for index in range(3))


def test_a_classifier_has_none(float_dir: Make) -> None:
    assert open_model(float_dir("mlp")).blocks == ()


def test_lists_inside_a_block_do_not_count() -> None:
    def expert() -> nn.Module:
        return nn.Sequential(nn.Linear(64, 64))

    inner = [nn.ModuleDict({"experts": nn.ModuleList([expert() for _ in range(3)])}) for _ in "ab"]
    model = nn.ModuleDict({"layers": nn.ModuleList(inner)})
    assert find_blocks(model) == ("layers.0", "layers.1")


def test_blocks_that_share_weights_are_none() -> None:
    shared = nn.Linear(4, 4)
    model = nn.ModuleDict({"layers": nn.ModuleList([nn.Sequential(shared), nn.Sequential(shared)])})
    assert find_blocks(model) == ()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("kind", ["gemma3", "bert"])
def test_weights_keep_the_files_dtype_and_constants_are_those_of_float32(
    float_dir: Make, kind: str, dtype: torch.dtype
) -> None:
    path = float_dir(kind, dtype)
    opened = open_model(path)
    whole = float_class(path).from_pretrained(path, dtype=torch.float32)
    assert {parameter.dtype for parameter in opened.model.parameters()} == {dtype}
    for name, parameter in opened.model.named_parameters():
        assert torch.equal(parameter.float(), whole.get_parameter(name))
    buffers = dict(whole.named_buffers())
    assert buffers.keys() == dict(opened.model.named_buffers()).keys()
    for name, buffer in opened.model.named_buffers():
        assert buffer.dtype == buffers[name].dtype
        assert torch.equal(buffer, buffers[name])
    assert opened.model.config.to_dict() == whole.config.to_dict()


def test_a_copy_is_float32_and_leaves_the_original_alone(float_dir: Make) -> None:
    opened = open_model(float_dir("llama"))
    original = opened.model.get_submodule("model.layers.0")
    before = {name: tensor.clone() for name, tensor in original.state_dict().items()}
    copy = copied(original)
    for name, tensor in copy.state_dict().items():
        assert tensor.dtype == torch.float32
        assert torch.equal(tensor, before[name].float())
        tensor.zero_()
    for name, tensor in original.state_dict().items():
        assert torch.equal(tensor, before[name])


def file_bytes() -> int:
    """Bytes of mapped files that are in this process's memory."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssFile:"))


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_pages_that_are_released_leave_memory_and_come_back_the_same(tmp_path: Path) -> None:
    from safetensors import safe_open
    from safetensors.torch import save_file

    size = 64 << 20
    numbers = torch.arange(size // 4, dtype=torch.float32)
    save_file({"weight": numbers}, tmp_path / "model.safetensors")
    del numbers
    with safe_open(tmp_path / "model.safetensors", "pt") as file:
        weight = file.get_tensor("weight")
    before = file_bytes()
    total = float(weight.double().sum())
    assert file_bytes() - before > size * 0.9
    release([weight])
    assert file_bytes() - before < size * 0.1
    assert float(weight.double().sum()) == total


def test_what_maps_no_file_is_never_touched() -> None:
    weight = torch.arange(1 << 20, dtype=torch.float32)
    release([weight, torch.empty(0), torch.tensor(3.0)])
    assert torch.equal(weight, torch.arange(1 << 20, dtype=torch.float32))
