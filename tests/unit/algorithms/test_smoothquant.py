"""SmoothQuant evens out what one scale has to hold, and changes nothing but rounding."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch

from quantship.algorithms import folds, rtn, smoothquant
from quantship.algorithms.block import Block
from quantship.quant.calibration import calibrate
from quantship.quant.ranges import find_grid
from quantship.quant.scheme import SCHEMES, Override
from quantship.recipe.rounding_options import Calibration

Build = Callable[..., Block]
ARCHITECTURES = ("llama", "qwen3", "gemma3", "phi3", "gpt2", "opt", "bert")
RANGES = Calibration(range="minmax")


def planted(build: Build, name: str, scheme: str = "w8a8-static", factor: float = 80.0) -> Block:
    """A block with an outlier in each input that a fold reaches."""
    block = build(name, SCHEMES[scheme].model_copy(update={"embedding": None}))
    for fold in folds.find(block):
        scale_I = torch.ones(len(fold.row_I))
        scale_I[3] = 1 / factor
        folds.apply(block, fold, folds.tied(fold, scale_I))
    return block


def error(block: Block, quantize: Callable[[Block], object]) -> float:
    """Squared error of a block's output on its calls, static ranges fixed."""
    wanted = [block.run(call) for call in block.calls]
    made = Block(block.name, copy.deepcopy(block.module), block.formats, block.calls)
    quantize(made)
    assert made.settled().keys() == block.formats.keys()
    calibrate(made.module, made.calls, lambda call: made.run(call), RANGES)
    apart = [made.run(call) - output for call, output in zip(block.calls, wanted, strict=True)]
    return float(torch.cat(apart).square().sum())


def by(options: smoothquant.Options | None) -> Callable[[Block], object]:
    if options is None:
        return lambda block: rtn.quantize(block, rtn.Options(), find_grid)
    return lambda block: smoothquant.quantize(block, options, find_grid)


@pytest.mark.parametrize("name", ARCHITECTURES)
@pytest.mark.parametrize("strength", [0.5, "searched"])
def test_less_error_than_rounding_to_nearest(
    name: str, strength: float | str, model_block: Build
) -> None:
    block = planted(model_block, name)
    options = smoothquant.Options.model_validate({"strength": strength})
    assert error(block, by(options)) < 0.5 * error(block, by(None))


def test_a_searched_strength_is_no_worse_than_a_given_one(model_block: Build) -> None:
    block = planted(model_block, "llama")
    searched = error(block, by(smoothquant.Options(strength="searched")))
    for strength in (0.2, 0.5, 0.8):
        assert searched < 1.05 * error(block, by(smoothquant.Options(strength=strength)))


def test_dynamic_ranges_gain_too(model_block: Build) -> None:
    block = planted(model_block, "llama", "w8a8", factor=300.0)
    assert error(block, by(smoothquant.Options())) < 0.5 * error(block, by(None))


def test_gptq_rounds_what_was_smoothed(model_block: Build) -> None:
    block = planted(model_block, "llama", "w4a8", factor=20.0)
    nearest = error(block, by(smoothquant.Options()))
    assert error(block, by(smoothquant.Options(rounding="gptq"))) < nearest


def test_at_strength_one_all_features_reach_as_far(model_block: Build) -> None:
    from quantship.algorithms import inputs

    block = planted(model_block, "llama")
    name = f"{block.name}.mlp.down_proj"
    smoothquant.quantize(block, smoothquant.Options(strength=1), find_grid)
    reach_I = inputs.gather(block, [name])[name].reach_I
    # The layers before are rounded by now.
    torch.testing.assert_close(reach_I, reach_I.mean().expand_as(reach_I), rtol=0.1, atol=0)


def test_at_strength_zero_all_columns_of_the_weight_do(model_block: Build) -> None:
    block = planted(model_block, "gpt2")
    smoothquant.quantize(block, smoothquant.Options(strength=0), find_grid)
    # Its own columns alone: nothing is folded into the rows of this one.
    reach_I = block.weight(f"{block.name}.mlp.c_fc").abs().amax(dim=0)
    torch.testing.assert_close(reach_I, reach_I.mean().expand_as(reach_I), rtol=0.01, atol=0)


def test_a_layer_with_float_inputs_is_left_alone(model_block: Build) -> None:
    attention = Override(layers="*.self_attn.*", weight=SCHEMES["w8a16"].weight)
    scheme = SCHEMES["w8a8-static"].model_copy(update={"overrides": (attention,)})
    block = model_block("llama", scheme)
    before = block.module.get_submodule("input_layernorm").weight.clone()
    smoothquant.quantize(block, smoothquant.Options(), find_grid)
    assert torch.equal(block.module.get_submodule("input_layernorm").weight, before)


def test_remarks_name_what_could_not_be_smoothed(model_block: Build) -> None:
    scheme = SCHEMES["w8a8-static"].model_copy(update={"embedding": None})
    prefix = "transformer.h.1"
    assert smoothquant.quantize(model_block("gpt2", scheme), smoothquant.Options(), find_grid) == [
        f"{prefix}.mlp.c_proj: nothing before takes up scales; not smoothed"
    ]


def test_schemes_with_float_activations_are_rejected() -> None:
    reason = smoothquant.reject(SCHEMES["w4a16-g128"], smoothquant.Options())
    assert reason is not None
    assert "scheme 'w4a16-g128' leaves these in float" in reason
    assert smoothquant.reject(SCHEMES["w4a8"], smoothquant.Options()) is None
    some = Override(
        layers="*.down_proj",
        weight=SCHEMES["w8a8"].weight,
        activation=SCHEMES["w8a8"].activation,
    )
    mixed = SCHEMES["w4a16-g128"].model_copy(update={"overrides": (some,)})
    assert smoothquant.reject(mixed, smoothquant.Options()) is None


@pytest.mark.parametrize("strength", [0.5, "searched"])
@pytest.mark.parametrize("kind", ["zero inputs", "dead channels", "no weights", "one call"])
def test_degenerate_blocks_stay_finite(
    kind: str, strength: float | str, model_block: Build
) -> None:
    block = planted(model_block, "llama", factor=1.0)
    if kind == "zero inputs":
        for call in block.calls:
            call.hidden.zero_()
    if kind == "dead channels":
        block.module.get_submodule("input_layernorm").weight[::2] = 0
        block.module.get_submodule("mlp.up_proj").weight[::2] = 0
        block.module.get_submodule("mlp.gate_proj").weight[:, 5] = 0
    if kind == "no weights":
        for name in block.formats:
            block.weight(name).zero_()
    if kind == "one call":
        block = Block(block.name, block.module, block.formats, block.calls[:1])
    options = smoothquant.Options.model_validate({"strength": strength})
    smoothquant.quantize(block, options, find_grid)
    assert all(torch.isfinite(parameter).all() for parameter in block.module.parameters())
    calibrate(block.module, block.calls, lambda call: block.run(call), RANGES)
    assert all(bool(torch.isfinite(block.run(call)).all()) for call in block.calls)
