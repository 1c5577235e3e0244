"""A fold changes no output, and what would change it is no fold."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from quantship.algorithms import folds
from quantship.algorithms.block import Block, Call
from quantship.quant.scheme import SCHEMES, LayerFormat

Build = Callable[..., Block]
LLAMA = {
    "self_attn.q_proj": ("input_layernorm", "weight"),
    "self_attn.o_proj": ("self_attn.v_proj", "rows"),
    "mlp.gate_proj": ("post_attention_layernorm", "weight"),
    "mlp.down_proj": ("mlp.up_proj", "rows"),
}
FOLDS = {
    "llama": LLAMA,
    "qwen3": LLAMA,
    "gemma3": {
        "self_attn.q_proj": ("input_layernorm", "one_plus_weight"),
        "self_attn.o_proj": ("self_attn.v_proj", "rows"),
        "mlp.gate_proj": ("pre_feedforward_layernorm", "one_plus_weight"),
        "mlp.down_proj": ("mlp.up_proj", "rows"),
    },
    "phi3": {
        "self_attn.qkv_proj": ("input_layernorm", "weight"),
        "self_attn.o_proj": ("self_attn.qkv_proj", "rows"),
        "mlp.gate_up_proj": ("post_attention_layernorm", "weight"),
        "mlp.down_proj": ("mlp.gate_up_proj", "rows"),
    },
    "gpt2": {  # nothing goes through its GELU
        "attn.c_attn": ("ln_1", "weight"),
        "attn.c_proj": ("attn.c_attn", "rows"),
        "mlp.c_fc": ("ln_2", "weight"),
    },
    "opt": {  # ReLU lets positive scales through
        "self_attn.q_proj": ("self_attn_layer_norm", "weight"),
        "self_attn.out_proj": ("self_attn.v_proj", "rows"),
        "fc1": ("final_layer_norm", "weight"),
        "fc2": ("fc1", "rows"),
    },
    "bert": {  # its norms feed the residual too
        "attention.output.dense": ("attention.self.value", "rows"),
    },
}


@pytest.mark.parametrize("name", FOLDS)
def test_every_fold_of_an_architecture_is_found(name: str, model_block: Build) -> None:
    found = folds.find(model_block(name))
    assert {fold.readers[0]: (fold.source, fold.kind) for fold in found} == FOLDS[name]


@pytest.mark.parametrize("name", FOLDS)
def test_folding_moves_scales_and_changes_no_output(name: str, model_block: Build) -> None:
    block = model_block(name)
    wanted = [block.run(call) for call in block.calls]
    for fold in folds.find(block):
        source = block.module.get_submodule(fold.source)
        before = [parameter.clone() for parameter in source.parameters()]
        weight_OI = block.weight(fold.layers[0]).clone()
        scale_I = folds.tied(fold, random_scales(len(fold.row_I)))
        folds.apply(block, fold, scale_I)
        assert any(not torch.equal(*pair) for pair in zip(before, source.parameters(), strict=True))
        if fold.source not in fold.readers:
            torch.testing.assert_close(block.weight(fold.layers[0]), weight_OI * scale_I)
    for call, output in zip(block.calls, wanted, strict=True):
        torch.testing.assert_close(block.run(call), output, rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize("name", FOLDS)
def test_looking_for_folds_leaves_the_block_as_it_was(name: str, model_block: Build) -> None:
    block = model_block(name)
    before = copy.deepcopy(block.module.state_dict())
    folds.find(block)
    assert all(torch.equal(before[key], value) for key, value in block.module.state_dict().items())
    assert not any(one._forward_hooks or one._forward_pre_hooks for one in block.module.modules())


def test_heads_that_share_values_share_scales(model_block: Build) -> None:
    fold = next(one for one in folds.find(model_block("llama")) if "o_proj" in one.readers[0])
    row_I = fold.row_I.view(2, 2, 16)  # value heads, query heads of each, features
    assert torch.equal(row_I[:, 0], row_I[:, 1])
    assert sorted(row_I[:, 0].flatten().tolist()) == list(range(32))
    scale_I = folds.tied(fold, random_scales(64)).view(2, 2, 16)
    assert torch.equal(scale_I[:, 0], scale_I[:, 1])


def test_values_are_the_last_third_of_what_gpt2_makes_at_once(model_block: Build) -> None:
    fold = next(one for one in folds.find(model_block("gpt2")) if one.kind == "rows")
    assert torch.equal(fold.row_I, torch.arange(128, 192))


def test_a_reader_that_stays_in_float_is_scaled_with_the_others(model_block: Build) -> None:
    block = model_block("llama")
    formats = {name: one for name, one in block.formats.items() if "k_proj" not in name}
    some = Block(block.name, block.module, formats, block.calls)
    fold = folds.find(some)[0]
    assert fold.readers == ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")
    assert fold.layers == ("model.layers.1.self_attn.q_proj", "model.layers.1.self_attn.v_proj")
    wanted = some.run(some.calls[0])
    folds.apply(some, fold, random_scales(64))
    torch.testing.assert_close(some.run(some.calls[0]), wanted, rtol=1e-5, atol=2e-6)


class Custom(nn.Module):
    """A norm, two layers after it, and whatever a test makes of them."""

    def __init__(self, forward: Callable[[Custom, Tensor], Tensor]) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(32)
        self.up = nn.Linear(32, 32)
        self.down = nn.Linear(32, 32)
        self._run = forward

    def forward(self, hidden: Tensor) -> Tensor:
        """Hidden states in and out."""
        return self._run(self, hidden)


def custom_block(
    forward: Callable[[Custom, Tensor], Tensor], change: Callable[[Custom], None] | None = None
) -> Block:
    torch.manual_seed(0)
    module = Custom(forward).requires_grad_(False)
    for parameter in module.parameters():
        parameter.add_(torch.randn_like(parameter) * 0.2)
    if change is not None:
        change(module)
    format = LayerFormat(weight=SCHEMES["w4a16-g32"].weight)
    return Block("", module, {"up": format, "down": format}, [Call(torch.randn(1, 9, 32))])


def sources(block: Block) -> list[str]:
    return [fold.source for fold in folds.find(block)]


def test_layers_in_a_row_are_folds() -> None:
    assert sources(custom_block(lambda m, x: x + m.down(m.up(m.norm(x))))) == ["norm", "up"]


@pytest.mark.parametrize(
    "forward",
    [
        lambda m, x: m.norm(x) + m.down(F.silu(m.up(m.norm(x)))),
        lambda m, x: _twice(m, m.norm(x)),
    ],
    ids=["the norm runs twice", "its output is added to the residual"],
)
def test_a_norm_with_another_reader_is_no_fold(
    forward: Callable[[Custom, Tensor], Tensor],
) -> None:
    assert sources(custom_block(forward)) == []


def _twice(module: Custom, normed: Tensor) -> Tensor:
    return normed + module.down(F.silu(module.up(normed)))


@pytest.mark.parametrize("between", [F.gelu, F.silu, torch.tanh, F.softmax, torch.cos])
def test_nothing_folds_through_a_function_that_bends(between: Callable[..., Tensor]) -> None:
    def forward(module: Custom, hidden: Tensor) -> Tensor:
        made = module.up(hidden)
        return hidden + module.down(between(made, -1) if between is F.softmax else between(made))

    assert sources(custom_block(forward)) == []


def test_a_layer_whose_output_is_also_read_elsewhere_is_no_fold() -> None:
    def forward(module: Custom, hidden: Tensor) -> Tensor:
        made = module.up(hidden)
        return made + module.down(made)

    assert sources(custom_block(forward)) == []


def test_a_mixture_of_features_is_no_fold() -> None:
    def forward(module: Custom, hidden: Tensor) -> Tensor:
        made = module.up(hidden)
        return hidden + module.down(made + made.roll(1, dims=-1))

    assert sources(custom_block(forward)) == []


def test_a_gate_of_one_feature_is_no_fold() -> None:
    def narrow(module: Custom) -> None:
        module.up = nn.Linear(32, 1).requires_grad_(False)

    block = custom_block(lambda m, x: x + m.down(m.up(x) * x), narrow)
    assert sources(block) == []


def test_features_in_another_order_are_a_fold() -> None:
    block = custom_block(lambda m, x: x + m.down(m.up(x).flip(-1)))
    (fold,) = folds.find(block)
    assert torch.equal(fold.row_I, torch.arange(31, -1, -1))
    wanted = block.run(block.calls[0])
    folds.apply(block, fold, random_scales(32))
    torch.testing.assert_close(block.run(block.calls[0]), wanted, rtol=1e-5, atol=2e-6)


def test_a_shared_parameter_is_no_fold() -> None:
    def share(module: Custom) -> None:
        module.spare = nn.LayerNorm(32)
        module.spare.weight = module.norm.weight

    straight = custom_block(lambda m, x: x + m.down(F.silu(m.up(m.norm(x)))), share)
    assert sources(straight) == []


def test_a_norm_without_a_weight_is_no_fold() -> None:
    def bare(module: Custom) -> None:
        module.norm = nn.LayerNorm(32, elementwise_affine=False)

    assert sources(custom_block(lambda m, x: x + m.down(F.silu(m.up(m.norm(x)))), bare)) == []


def test_a_norm_without_a_bias_is_a_fold() -> None:
    def bare(module: Custom) -> None:
        module.norm = nn.LayerNorm(32, bias=False).requires_grad_(False)

    block = custom_block(lambda m, x: x + m.down(F.silu(m.up(m.norm(x)))), bare)
    assert sources(block) == ["norm"]


def test_features_that_are_always_zero_are_left_alone() -> None:
    block = custom_block(lambda m, x: x + m.down(m.up(x).relu()))
    module = block.module
    module.up.bias[3] = -1000
    (fold,) = folds.find(block)
    assert fold.row_I[3] == -1
    scale_I = folds.tied(fold, random_scales(32))
    assert scale_I[3] == 1
    before = module.up.weight[3].clone(), module.up.bias[3].clone()
    folds.apply(block, fold, scale_I)
    assert torch.equal(module.up.weight[3], before[0])
    assert torch.equal(module.up.bias[3], before[1])


def test_a_block_that_adds_nothing_proves_nothing() -> None:
    def empty(module: Custom) -> None:
        module.down.weight.zero_()
        module.down.bias.zero_()

    assert sources(custom_block(lambda m, x: x + m.down(m.up(m.norm(x))), empty)) == []


@pytest.mark.parametrize("bad", [0.0, float("nan"), float("inf")])
def test_inputs_that_say_nothing_are_no_fold(bad: float) -> None:
    block = custom_block(lambda m, x: x + m.down(m.up(x)))
    block.calls[0].hidden.fill_(bad)
    block.module.up.bias.zero_()
    assert sources(block) == []


def test_without_calls_nothing_is_found(model_block: Build) -> None:
    block = model_block("llama")
    assert folds.find(Block(block.name, block.module, block.formats, ())) == []


def random_scales(count: int) -> Tensor:
    return torch.rand(count, generator=torch.Generator().manual_seed(7)) * 4 + 0.25
