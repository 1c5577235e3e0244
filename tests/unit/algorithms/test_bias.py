"""A layer's mean output over the calibration data is what it was before its weight was rounded."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from quantship.algorithms import bias
from quantship.algorithms.block import Block
from quantship.blocks.opening import Opened, find_blocks
from quantship.blocks.walk import blocks
from quantship.quant.layers import ends, formats
from quantship.quant.ranges import find_grid
from quantship.quant.scheme import SCHEMES

if TYPE_CHECKING:
    from transformers import PreTrainedModel

pytestmark = pytest.mark.usefixtures("one_thread")

SIZES: dict[str, Any] = {
    "vocab_size": 96,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
}
SCHEME_NAMES = ["w4a16-g32", "w4a16-g32-asymmetric", "w4a8", "w8a8", "w8a8-static", "w2a16-g32"]


def gpt2() -> PreTrainedModel:
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(
        vocab_size=96,
        n_embd=64,
        n_layer=2,
        n_head=4,
        n_positions=64,
        bos_token_id=0,
        eos_token_id=0,
    )
    return GPT2LMHeadModel(config)


def bert() -> PreTrainedModel:
    from transformers import BertConfig, BertForSequenceClassification

    return BertForSequenceClassification(BertConfig(**SIZES))


def llama() -> PreTrainedModel:
    from transformers import LlamaConfig, LlamaForCausalLM

    return LlamaForCausalLM(LlamaConfig(**SIZES, num_key_value_heads=2))


def mlp() -> PreTrainedModel:
    from quantship.mlp.model import Mlp, MlpConfig

    return Mlp(MlpConfig(sizes=[64, 32, 32, 8]))


def walked(build: Callable[[], PreTrainedModel], scheme: str, *, corrects: bool) -> Iterator[Block]:
    """The blocks of a model, each as it is left when the next one is asked for."""
    torch.manual_seed(0)
    model = build().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)  # biases begin as zeros
    outer = [module for module in ends(model) if module is not None]
    found = {
        name: format
        for name, format in formats(model, SCHEMES[scheme]).items()
        if model.get_submodule(name) not in outer
    }
    opened = Opened(model, find_blocks(model))
    return blocks(opened, found, batches(build), corrects_bias=corrects)


def batches(build: Callable[[], PreTrainedModel]) -> list[dict[str, Tensor]]:
    generator = torch.Generator().manual_seed(1)
    if build is mlp:
        return [{"features": torch.rand(4, 64, generator=generator)} for _ in range(3)]
    return [
        {"input_ids": torch.randint(4, 96, (1, length), generator=generator)}
        for length in (12, 20, 7)
    ]


def mean_output(block: Block, name: str, inputs_TI: Tensor) -> Tensor:
    """Mean (O) of what a layer makes of some inputs, whether it is settled or not."""
    return F.linear(inputs_TI, block.weight(name), block.layer(name).bias).double().mean(dim=0)


@pytest.mark.parametrize("scheme", SCHEME_NAMES)
@pytest.mark.parametrize("build", [gpt2, bert, mlp])
def test_the_mean_output_is_restored(build: Callable[[], PreTrainedModel], scheme: str) -> None:
    corrected: dict[bool, float] = {}
    for corrects in (False, True):
        errors = []
        for block in walked(build, scheme, corrects=corrects):
            for group in block.groups() if block.formats else []:
                for name in group:
                    inputs_TI = torch.cat(list(block.inputs(name)))
                    before_O = mean_output(block, name, inputs_TI)
                    format = block.formats[name]
                    block.settle(name, find_grid(block.weight(name), format.weight))
                    after_O = mean_output(block, name, inputs_TI)
                    errors.append(float((after_O - before_O).abs().max()))
            assert block.corrected == (list(block.settled()) if corrects else [])
        assert len(errors) > 2
        corrected[corrects] = max(errors)
    assert corrected[True] < 1e-6 < 1e-4 < corrected[False]


def test_layers_without_a_bias_are_left_alone() -> None:
    for corrects in (False, True):
        for block in walked(llama, "w4a16-g32", corrects=corrects):
            for name, format in block.formats.items():
                block.settle(name, find_grid(block.weight(name), format.weight))
                assert block.layer(name).bias is None
            assert block.corrected == []


def test_parts_of_any_length_count_by_their_tokens() -> None:
    generator = torch.Generator().manual_seed(0)
    error_OI = torch.randn(6, 10, generator=generator)
    parts = [torch.randn(length, 10, generator=generator) for length in (1, 30, 7)]
    whole = bias.correction(error_OI, [torch.cat(parts)])
    torch.testing.assert_close(bias.correction(error_OI, parts), whole)
    torch.testing.assert_close(whole, error_OI @ torch.cat(parts).mean(dim=0))


def test_no_tokens_correct_nothing() -> None:
    assert not bias.correction(torch.ones(3, 4), [torch.zeros(0, 4)]).any()
