"""AWQ makes less error than rounding to nearest, and leaves codes on grids that files hold."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch

from quantship.algorithms import awq, folds, rtn
from quantship.algorithms.block import Block, Call
from quantship.errors import QuantshipError
from quantship.quant import numerics
from quantship.quant.ranges import find_grid
from quantship.quant.scheme import SCHEMES, Override, Scheme

Build = Callable[..., Block]
ARCHITECTURES = ("llama", "qwen3", "gemma3", "phi3", "gpt2", "opt", "bert")


def planted(build: Build, name: str, scheme: str | Scheme = "w4a16-g32-linear") -> Block:
    """A block in which some input features are far larger than the others, by its own folds."""
    block = build(name, scheme)
    for fold in folds.find(block):
        scale_I = torch.ones(len(fold.row_I))
        scale_I[::9] = 1 / 12
        folds.apply(block, fold, folds.tied(fold, scale_I))
    return block


def error(block: Block, quantize: Callable[[Block], object]) -> float:
    """Squared error of a block's output on its calls, relative to what the block adds."""
    wanted = [block.run(call) for call in block.calls]
    made = Block(block.name, copy.deepcopy(block.module), block.formats, block.calls)
    quantize(made)
    assert made.settled().keys() == block.formats.keys()
    apart = [made.run(call) - output for call, output in zip(block.calls, wanted, strict=True)]
    added = [output - call.hidden for call, output in zip(block.calls, wanted, strict=True)]
    return float(torch.cat(apart).square().sum() / torch.cat(added).square().sum())


def by(options: awq.Options | None) -> Callable[[Block], object]:
    if options is None:
        return lambda block: rtn.quantize(block, rtn.Options(), find_grid)
    return lambda block: awq.quantize(block, options, find_grid)


@pytest.mark.parametrize("name", ARCHITECTURES)
@pytest.mark.parametrize("clip", [False, True])
def test_less_error_than_rounding_to_nearest(name: str, clip: bool, model_block: Build) -> None:
    block = planted(model_block, name)
    share = 0.9 if name == "bert" else 0.6  # BERT's norms take no scales
    got = error(block, by(awq.Options(clip=clip)))
    assert got < share * error(block, by(None))


def test_clipping_makes_less_error_where_nothing_can_be_scaled(model_block: Build) -> None:
    block = model_block("bert")
    found = awq.Options(grid_points=1)
    assert error(block, by(found)) < error(block, by(found.model_copy(update={"clip": False})))


@pytest.mark.parametrize("clip", [False, True])
def test_gptq_rounds_what_was_scaled(clip: bool, model_block: Build) -> None:
    block = planted(model_block, "llama")
    nearest = error(block, by(awq.Options(clip=clip)))
    assert error(block, by(awq.Options(clip=clip, rounding="gptq"))) < nearest


@pytest.mark.parametrize("scheme", ["w4a8", "w8a8", "w4a16-g32-asymmetric", "w2a16-g32"])
def test_other_schemes_gain_too(scheme: str, model_block: Build) -> None:
    block = planted(model_block, "llama", scheme)
    assert error(block, by(awq.Options())) < 0.8 * error(block, by(None))


def test_scales_are_folded_so_that_nothing_else_remembers_them(model_block: Build) -> None:
    block = planted(model_block, "llama")
    norm = block.module.get_submodule("input_layernorm").weight.clone()
    kinds = {name: type(module) for name, module in block.module.named_modules()}
    awq.quantize(block, awq.Options(), find_grid)
    assert not torch.equal(block.module.get_submodule("input_layernorm").weight, norm)
    for name, module in block.module.named_modules():
        if name in kinds and f"{block.name}.{name}" not in block.formats:
            assert type(module) is kinds[name]


def test_grids_are_what_the_file_holds(model_block: Build) -> None:
    block = model_block("gpt2", "w4a16-g32-asymmetric")
    awq.quantize(block, awq.Options(grid_points=3), find_grid)
    for name, layer in block.settled().items():
        codes = layer.rounding.codes(block.weight(name))
        assert torch.equal(codes.scale_OG, codes.scale_OG.bfloat16().float())
        assert codes.zero_OG is not None
        low, high = numerics.code_range(4)
        assert codes.zero_OG.min() >= low
        assert codes.zero_OG.max() <= high


def test_remarks_name_what_could_not_be_scaled(model_block: Build) -> None:
    prefix = "bert.encoder.layer.1"
    (remark,) = awq.quantize(model_block("bert"), awq.Options(grid_points=1), find_grid)
    assert remark == (
        f"{prefix}.attention.self.key, {prefix}.attention.self.query, "
        f"{prefix}.attention.self.value, {prefix}.intermediate.dense, {prefix}.output.dense: "
        "nothing before takes up scales; clipped only"
    )
    assert awq.quantize(model_block("llama"), awq.Options(grid_points=1), find_grid) == []


def test_layers_in_float_are_scaled_and_stay_in_float(model_block: Build) -> None:
    base = SCHEMES["w4a16-g32-linear"]
    mixed = base.model_copy(
        update={
            "overrides": (
                Override(layers="*.k_proj", weight=None),
                Override(layers="*.v_proj", weight=SCHEMES["w8a16"].weight),
            )
        }
    )
    block = planted(model_block, "llama", mixed)
    before_OI = block.module.get_submodule("self_attn.k_proj").weight.clone()
    assert error(block, by(awq.Options())) < error(block, by(None))
    awq.quantize(block, awq.Options(), find_grid)
    layer = block.module.get_submodule("self_attn.k_proj")
    assert type(layer) is torch.nn.Linear
    assert not torch.equal(layer.weight, before_OI)


def degenerate(block: Block, kind: str) -> Block:
    hidden = block.calls[0].hidden
    if kind == "one token":
        kwargs = dict(block.calls[0].kwargs)
        cosine, sine = kwargs["position_embeddings"]
        kwargs |= {"position_embeddings": (cosine[:, :1], sine[:, :1]), "attention_mask": None}
        calls = [Call(hidden[:, :1], block.calls[0].args, kwargs)]
        return Block(block.name, block.module, block.formats, calls)
    if kind == "constant inputs":
        hidden.fill_(1)
        return Block(block.name, block.module, block.formats, block.calls[:1])
    if kind == "zero inputs":
        for call in block.calls:
            call.hidden.zero_()
    if kind == "dead channels":
        block.module.get_submodule("input_layernorm").weight[::2] = 0
        block.module.get_submodule("mlp.up_proj").weight[::2] = 0
    if kind == "dead weights":
        for name in block.formats:
            block.weight(name)[:, ::3] = 0
    if kind == "no weights":
        for name in block.formats:
            block.weight(name).zero_()
    return block


DEGENERATE = (
    "one token",
    "constant inputs",
    "zero inputs",
    "dead channels",
    "dead weights",
    "no weights",
)


REMARKS = {
    "one token": "self_attn.q_proj: calibration data has 1 tokens for it",
    "zero inputs": "self_attn.q_proj: all inputs are zero on the calibration data",
    "dead channels": "self_attn.q_proj: 32 of 64 inputs are zero on the calibration data",
}


@pytest.mark.parametrize("kind", DEGENERATE)
@pytest.mark.parametrize("scheme", ["w4a16-g32-linear", "w4a8"])
def test_degenerate_blocks_stay_finite_and_no_worse(
    kind: str, scheme: str, model_block: Build
) -> None:
    block = degenerate(model_block("llama", scheme), kind)
    wanted = [block.run(call) for call in block.calls]
    plain = Block(block.name, copy.deepcopy(block.module), block.formats, block.calls)
    rtn.quantize(plain, rtn.Options(), find_grid)
    remarks = awq.quantize(block, awq.Options(), find_grid)
    apart = [
        float(sum((one.run(call) - output).square().sum() for call, output in pairs))
        for one in (block, plain)
        for pairs in [list(zip(block.calls, wanted, strict=True))]
    ]
    assert all(torch.isfinite(parameter).all() for parameter in block.module.parameters())
    assert apart[0] <= apart[1] * 1.02 + 1e-9
    if kind in REMARKS:
        assert any(REMARKS[kind] in remark for remark in remarks)


def test_broken_inputs_are_an_error(model_block: Build) -> None:
    block = model_block("llama")
    block.calls[0].hidden[0, 0, 0] = float("inf")
    with pytest.raises(QuantshipError, match="infinite or not a number"):
        awq.quantize(block, awq.Options(), find_grid)
