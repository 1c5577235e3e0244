"""What is gathered of inputs is what reached the layers."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from quantship.algorithms import inputs
from quantship.algorithms.block import Block
from quantship.errors import QuantshipError
from quantship.quant import numerics
from quantship.quant.scheme import DYNAMIC, STATIC

Build = Callable[..., Block]
NAME = "model.layers.1.mlp.down_proj"


def test_extents_and_means_are_those_of_all_tokens(model_block: Build) -> None:
    block = model_block("llama")
    seen = inputs.gather(block, [NAME])[NAME]
    all_TI = torch.cat(list(block.inputs(NAME)))
    torch.testing.assert_close(seen.mean_I, all_TI.abs().mean(dim=0))
    assert torch.equal(seen.lowest_I, all_TI.amin(dim=0))
    assert torch.equal(seen.highest_I, all_TI.amax(dim=0))
    assert torch.equal(seen.reach_I, all_TI.abs().amax(dim=0))


def test_the_sample_is_of_all_calls_and_of_bounded_size(
    model_block: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inputs, "SAMPLED_TOKENS", 6)
    block = model_block("llama", num_calls=3)
    sample_TI = inputs.gather(block, [NAME])[NAME].tokens_TI
    assert len(sample_TI) == 6
    for call, part_TI in zip(block.inputs(NAME), sample_TI.split(2), strict=True):
        assert all(bool((call == row).all(dim=1).any()) for row in part_TI)


def test_a_divided_input_is_that_of_a_folded_block(model_block: Build) -> None:
    from quantship.algorithms import folds

    block = model_block("llama")
    fold = folds.find(block)[-1]
    scale_I = torch.rand(len(fold.row_I)) + 0.5
    expected = inputs.gather(block, [NAME])[NAME].divided(scale_I)
    folds.apply(block, fold, scale_I)
    got = inputs.gather(block, [NAME])[NAME]
    for field in ("tokens_TI", "mean_I", "lowest_I", "highest_I"):
        torch.testing.assert_close(getattr(got, field), getattr(expected, field))


def test_samples_are_rounded_as_layers_round_them(model_block: Build) -> None:
    seen = inputs.gather(model_block("llama"), [NAME])[NAME]
    assert seen.rounded(None) is seen.tokens_TI
    dynamic = numerics.fake_quantize_input(seen.tokens_TI, DYNAMIC)
    assert torch.equal(seen.rounded(DYNAMIC), dynamic)
    static_TI = seen.rounded(STATIC)
    step = (seen.highest_I.max() - seen.lowest_I.min()) / 255
    assert float((static_TI - seen.tokens_TI).abs().max()) <= float(step) * 0.51
    assert len(static_TI.unique()) <= 256


def test_broken_inputs_are_an_error_that_names_the_layer(model_block: Build) -> None:
    block = model_block("llama")
    block.calls[1].hidden[0, 3, 5] = float("nan")
    with pytest.raises(QuantshipError, match=r"input of model\.layers\.1\.mlp\.down_proj inf"):
        inputs.gather(block, [NAME])
