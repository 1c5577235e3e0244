from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from quantship.algorithms.block import Block
from quantship.blocks import walk
from quantship.blocks.opening import open_model
from quantship.errors import QuantshipError
from quantship.models import float_class
from quantship.quant import layers
from quantship.quant.scheme import SCHEMES, LayerFormat

Make = Callable[..., Path]
Batches = list[dict[str, Tensor]]
KINDS = ("llama", "llama-untied", "gemma3", "gpt2", "bert")


def inner_formats(model: Any) -> dict[str, LayerFormat]:
    """Formats of all layers but the ends."""
    head = layers.ends(model)[1]
    found = layers.formats(model, SCHEMES["w8a8-linear"])
    return {name: one for name, one in found.items() if model.get_submodule(name) is not head}


def logits_of(blocks: list[Block]) -> list[Tensor]:
    tail = blocks[-1]
    return [tail.run(call) for call in tail.calls]


@torch.no_grad()
def whole(path: Path, batches: Batches) -> list[Tensor]:
    model = float_class(path).from_pretrained(path, dtype=torch.float32).eval()
    named = [{key: batch[key] for key in batch.keys() - {"labels"}} for batch in batches]
    return [model(**batch).logits for batch in named]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("kind", KINDS)
def test_a_walk_in_float_is_the_model(
    float_dir: Make, batches: Batches, kind: str, dtype: torch.dtype
) -> None:
    """Gemma's blocks are called with masks and rotary tables that differ from block to block."""
    path = float_dir(kind, dtype)
    found = list(walk.blocks(open_model(path), {}, batches))
    assert [block.name for block in found] == [*open_model(path).blocks, ""]
    # Blocks lie aligned in memory, files do not: sums may differ in their last bits.
    close = {"rtol": 0, "atol": 1e-6 if dtype == torch.float32 else 0}
    for mine, theirs in zip(logits_of(found), whole(path, batches), strict=True):
        torch.testing.assert_close(mine, theirs, **close)  # type: ignore[arg-type]


def test_a_classifier_of_samples_is_a_single_tail(float_dir: Make) -> None:
    path = float_dir("mlp")
    generator = torch.Generator().manual_seed(0)
    samples: Batches = [{"features": torch.rand(1, 12, generator=generator)} for _ in range(3)]
    (tail,) = walk.blocks(open_model(path), inner_formats(open_model(path).model), samples)
    assert tail.groups() == [("layers.0",), ("layers.1",), ("layers.2",)]
    for mine, theirs in zip(logits_of([tail]), whole(path, samples), strict=True):
        assert torch.equal(mine, theirs)


@pytest.mark.parametrize("given", [True, False], ids=["calibrated", "no data"])
@pytest.mark.parametrize(
    "kind", ["albert", "deberta"], ids=["runs several times", "returns more than is passed on"]
)
def test_a_block_that_does_more_than_pass_on_is_no_chain(
    float_dir: Make, batches: Batches, kind: str, given: bool
) -> None:
    path = float_dir(kind)
    found = list(walk.blocks(open_model(path), {}, batches if given else ()))
    if not given:
        assert len(found) == len(open_model(path).blocks) + 1
        return
    (tail,) = found
    for mine, theirs in zip(logits_of([tail]), whole(path, batches), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_every_layer_is_reached_in_the_block_it_belongs_to(
    float_dir: Make, batches: Batches, kind: str
) -> None:
    opened = open_model(float_dir(kind))
    formats = inner_formats(opened.model)
    seen: list[str] = []
    for block in walk.blocks(opened, formats, batches):
        names = [name for group in block.groups() for name in group] if block.formats else []
        assert sorted(names) == sorted(block.formats)
        assert all(name.startswith(f"{block.name}.") for name in names if block.name)
        for name in names:
            width = block.weight(name).shape[1]
            inputs = list(block.inputs(name))
            assert [one.shape[1] for one in inputs] == [width] * len(batches)
        seen += names
    assert sorted(seen) == sorted(formats)


def test_what_a_block_becomes_is_what_the_next_one_gets(float_dir: Make, batches: Batches) -> None:
    opened = open_model(float_dir("llama"))
    arriving = []
    for block in walk.blocks(opened, {}, batches):
        arriving.append([call.hidden for call in block.calls])
        if block.name == opened.blocks[0]:
            with torch.no_grad():
                for parameter in block.module.parameters():
                    parameter.zero_()
    first, second, third, _ = arriving
    for before, after, later in zip(first, second, third, strict=True):
        assert torch.equal(before, after)  # nothing but the residual stream is left
        assert not torch.equal(after, later)


def test_the_model_is_not_changed(float_dir: Make, batches: Batches) -> None:
    opened = open_model(float_dir("gemma3"))
    before = {name: tensor.clone() for name, tensor in opened.model.state_dict().items()}
    config = opened.model.config.to_dict()
    for block in walk.blocks(opened, {}, batches):
        with torch.no_grad():
            for parameter in block.module.parameters():
                parameter.mul_(0.5)
    after = opened.model.state_dict()
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())
    assert opened.model.config.to_dict() == config


def test_without_data_there_are_no_calls(float_dir: Make) -> None:
    opened = open_model(float_dir("gpt2"))
    found = [(block.name, tuple(block.calls)) for block in walk.blocks(opened, {})]
    assert found == [(name, ()) for name in (*opened.blocks, "")]


def test_a_block_that_is_done_with_holds_nothing(float_dir: Make, batches: Batches) -> None:
    blocks = list(walk.blocks(open_model(float_dir("llama")), {}, batches))
    for block in blocks[:-1]:
        assert not list(block.module.parameters())
        assert not block.calls


@pytest.mark.parametrize(
    ("place", "named"),
    [
        ("model.layers.1.mlp.up_proj.weight", "leave block model.layers.1 are nan or infinite"),
        ("model.embed_tokens.weight", "reach block model.layers.0 are nan or infinite"),
    ],
)
@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_activations_that_are_no_numbers_name_the_block(
    float_dir: Make, batches: Batches, place: str, named: str, number: float
) -> None:
    opened = open_model(float_dir("llama", torch.float32))
    with torch.no_grad():
        weight = opened.model.get_parameter(place)
        weight.data = weight.data.clone()
        weight[batches[0]["input_ids"][0, 0], 0] = number
    with pytest.raises(QuantshipError, match=named):
        list(walk.blocks(opened, {}, batches))
