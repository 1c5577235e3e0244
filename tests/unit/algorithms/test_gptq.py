from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import Tensor, nn

from quantship.algorithms import compensation, gptq
from quantship.algorithms.block import Block, Call
from quantship.errors import QuantshipError
from quantship.quant import numerics
from quantship.quant.numerics import Grid, choose_grid, dequantize, round_to
from quantship.quant.ranges import find_grid
from quantship.quant.scheme import DYNAMIC, INT4_G32, SCHEMES, LayerFormat, WeightFormat

if TYPE_CHECKING:
    from transformers import PreTrainedModel

pytestmark = pytest.mark.usefixtures("one_thread")

WIDTH = 32
INT4 = WeightFormat(bits=4)
RANGE = gptq.Options(grid="range")
FORMATS = [
    INT4,
    WeightFormat(bits=2, group_size=8),
    WeightFormat(bits=4, group_size=8, symmetric=False),
    WeightFormat(bits=4, group_size=16, scale_dtype="bfloat16"),
    WeightFormat(bits=6, symmetric=False, scale_dtype="bfloat16"),
    WeightFormat(bits=8),
    WeightFormat(bits=8, granularity="per_tensor"),
]
formats = pytest.mark.parametrize("fmt", FORMATS, ids=str)


class Attention(nn.Module):
    """Two layers of one input and one after them, as in a transformer's block."""

    def __init__(self, width: int = WIDTH) -> None:
        super().__init__()
        self.q, self.k = nn.Linear(width, 24, bias=False), nn.Linear(width, 24)
        self.o = nn.Linear(24, width)

    def forward(self, hidden: Tensor) -> Tensor:
        output = self.o(torch.tanh(self.q(hidden)) * self.k(hidden))
        assert isinstance(output, Tensor)
        return output


def correlated(num_tokens: int, width: int = WIDTH, seed: int = 0) -> Tensor:
    """Inputs (T, I) whose features go together, some large and some small."""
    random = torch.Generator().manual_seed(seed)
    mixing = torch.randn(width, width, generator=random) / math.sqrt(width)
    sizes = torch.randn(width, generator=random).exp()
    inputs_TI = torch.randn(num_tokens, width, generator=random) @ (mixing + 0.5)
    return inputs_TI * sizes


def module(seed: int = 0) -> Attention:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Attention()


def block_of(
    fmt: WeightFormat | dict[str, LayerFormat],
    inputs: Sequence[Tensor] | None = None,
    layers: nn.Module | None = None,
) -> Block:
    wanted = fmt if isinstance(fmt, dict) else {name: LayerFormat(weight=fmt) for name in "qko"}
    inputs = [correlated(50, seed=seed) for seed in range(4)] if inputs is None else inputs
    calls = [Call(input_TI.unsqueeze(0)) for input_TI in inputs]
    return Block("", (layers or module()).requires_grad_(False), wanted, calls)


def results(block: Block) -> dict[str, Tensor]:
    """The numbers that settled layers compute with."""
    return {
        name: dequantize(layer.rounding.codes(block.weight(name)))
        for name, layer in block.settled().items()
    }


def naive(
    weight_OI: Tensor, hessian_II: Tensor, grid: Grid, order: list[int], fmt: WeightFormat
) -> Tensor:
    """The paper's equations 2 and 3, column by column: the inverse anew for the columns left."""
    left_OI, hessian_II = weight_OI.double().clone(), hessian_II.double()
    group = fmt.group_size or weight_OI.shape[1]
    for step, column in enumerate(order):
        rest, now = order[step:], slice(column, column + 1)
        inverse = torch.linalg.inv(hessian_II[rest][:, rest])
        of_column = slice(column // group, column // group + 1)
        scale_O1 = grid.scale[:, of_column].expand(len(left_OI), 1)
        zero_O1 = None if grid.zero is None else grid.zero[:, of_column]
        # In float32: the ends of a symmetric grid's range lie between two codes.
        codes = round_to(
            left_OI[:, now].float(), Grid(scale_O1, zero_O1), WeightFormat(bits=fmt.bits)
        )
        number_O1 = dequantize(codes).double()
        left_OI[:, rest] -= (left_OI[:, now] - number_O1) / inverse[0, 0] * inverse[0]
        left_OI[:, now] = number_O1
    return left_OI.float()


def squared(error_OI: Tensor, hessian_II: Tensor) -> float:
    return float(((error_OI @ hessian_II) * error_OI).sum())


@formats
@pytest.mark.parametrize("act_order", [True, False])
@pytest.mark.parametrize("grid", ["searched", "range"])
def test_less_error_than_nearest(fmt: WeightFormat, act_order: bool, grid: Any) -> None:
    options = gptq.Options(act_order=act_order, grid=grid)
    block, weights = block_of(fmt), dict(module().named_parameters())
    hessian_II, _ = compensation.hessian(block.inputs("q"))
    assert gptq.settle(block, ("q", "k"), options, find_grid) == []
    for name, numbers_OI in results(block).items():
        weight_OI = weights[f"{name}.weight"].detach()
        nearest_OI = dequantize(round_to(weight_OI, choose_grid(weight_OI, fmt), fmt))
        ours = squared(weight_OI - numbers_OI, hessian_II)
        assert ours < 0.8 * squared(weight_OI - nearest_OI, hessian_II)


@formats
@pytest.mark.parametrize("act_order", [True, False])
def test_agrees_with_the_paper(fmt: WeightFormat, act_order: bool) -> None:
    block, weights = block_of(fmt), dict(module().named_parameters())
    hessian_II, _ = compensation.hessian(block.inputs("q"))
    squares_I = hessian_II.diagonal()
    order = squares_I.argsort(descending=True).tolist() if act_order else list(range(WIDTH))
    hessian_II = hessian_II + 0.1 * squares_I.mean() * torch.eye(WIDTH)
    gptq.settle(block, ("q", "k"), RANGE.model_copy(update={"act_order": act_order}), find_grid)
    for name, numbers_OI in results(block).items():
        weight_OI = weights[f"{name}.weight"].detach()
        wanted_OI = naive(weight_OI, hessian_II, choose_grid(weight_OI, fmt), order, fmt)
        assert torch.equal(numbers_OI, wanted_OI)


def test_many_columns_agree_with_the_paper() -> None:
    width = 2 * compensation.BATCH + 8
    inputs_TI = correlated(400, width)
    hessian_II, _ = compensation.hessian([inputs_TI])
    factor_II, _ = compensation.factor(hessian_II, 0.1)  # damps the Hessian in place
    assert factor_II is not None
    weight_OI = torch.randn(5, width, generator=torch.Generator().manual_seed(1))
    grid = choose_grid(weight_OI, INT4)
    ours_IO = compensation.round_columns(
        weight_OI.T.contiguous(), factor_II, grid, [0] * width, INT4
    )
    wanted_OI = naive(weight_OI, hessian_II, grid, list(range(width))[::-1], INT4)
    assert torch.equal(ours_IO.T, wanted_OI)


def test_uncorrelated_inputs_are_rounded_to_nearest() -> None:
    sizes_I = torch.linspace(1, 3, WIDTH)
    block = block_of(INT4_G32, [torch.diag(sizes_I)])
    weight_OI = block.weight("q").clone()
    gptq.settle(block, ("q",), RANGE, find_grid)
    nearest_OI = dequantize(numerics.round_to_nearest(weight_OI, INT4_G32))
    assert torch.equal(results(block)["q"], nearest_OI)


def test_features_may_stand_in_any_order() -> None:
    order_I = torch.randperm(WIDTH, generator=torch.Generator().manual_seed(3))
    inputs = [correlated(50, seed=seed) for seed in range(4)]
    moved = module()
    for layer in (moved.q, moved.k):
        layer.weight.data = layer.weight.data[:, order_I].contiguous()
    block = block_of(INT4, inputs)
    other = block_of(INT4, [input_TI[:, order_I] for input_TI in inputs], moved)
    for one in (block, other):
        gptq.settle(one, ("q", "k"), gptq.Options(), find_grid)
    assert torch.equal(results(block)["q"][:, order_I], results(other)["q"])


def test_act_order_is_the_order_of_inputs_that_fall() -> None:
    inputs_TI = correlated(200)
    order_I = inputs_TI.square().mean(dim=0).argsort(descending=True)
    found = []
    for act_order in (True, False):
        block = block_of(INT4, [inputs_TI[:, order_I]])
        gptq.settle(block, ("q",), gptq.Options(act_order=act_order), find_grid)
        found.append(results(block)["q"])
    assert torch.equal(*found)


def test_the_size_of_inputs_does_not_count() -> None:
    found = []
    for size in (1.0, 1024.0):
        block = block_of(INT4_G32, [size * correlated(200)])
        gptq.settle(block, ("q", "k"), gptq.Options(), find_grid)
        found.append(results(block)["k"])
    assert torch.equal(*found)


def test_layers_of_one_input_are_rounded_as_if_alone() -> None:
    wanted = {
        "q": LayerFormat(weight=INT4),
        "k": LayerFormat(weight=INT4_G32, activation=DYNAMIC),
        "o": LayerFormat(weight=WeightFormat(bits=8, granularity="per_tensor")),
    }
    together, alone = block_of(wanted), block_of(wanted)
    gptq.settle(together, ("q", "k"), gptq.Options(), find_grid)
    for name in ("k", "q"):
        gptq.settle(alone, (name,), gptq.Options(), find_grid)
        assert torch.equal(results(together)[name], results(alone)[name])


def test_layers_are_fitted_to_what_settled_layers_leave() -> None:
    block = block_of(INT4)
    gptq.quantize(block, gptq.Options(), find_grid)
    later = block_of(INT4)
    gptq.settle(later, ("q", "k"), gptq.Options(), find_grid)
    hessian_II, _ = compensation.hessian(later.inputs("o"))
    before_II, _ = compensation.hessian(block_of(INT4).inputs("o"))
    assert not torch.allclose(hessian_II, before_II, rtol=1e-3)
    gptq.settle(later, ("o",), gptq.Options(), find_grid)
    assert torch.equal(results(block)["o"], results(later)["o"])


def test_repetition_changes_nothing() -> None:
    fmt = WeightFormat(bits=4, group_size=8, scale_dtype="bfloat16")
    first, second = block_of(fmt), block_of(fmt)
    for block in (first, second):
        gptq.quantize(block, gptq.Options(), find_grid)
    assert all(torch.equal(results(first)[name], results(second)[name]) for name in "qko")


def test_gpt2s_layer_is_rounded_as_a_linear_one() -> None:
    from transformers.pytorch_utils import Conv1D

    linear = module().k
    transposed = Conv1D(linear.out_features, linear.in_features)
    transposed.weight.data = linear.weight.data.T.contiguous()
    transposed.bias.data = linear.bias.data.clone()
    inputs = [correlated(50, seed=seed) for seed in range(4)]
    found = []
    for layer in (linear, transposed):
        wanted = {"0": LayerFormat(weight=INT4)}
        block = block_of(wanted, inputs, nn.Sequential(layer))
        assert gptq.quantize(block, gptq.Options(), find_grid) == []
        found.append(results(block)["0"])
    assert torch.equal(*found)


@pytest.mark.parametrize("scheme", ["w4a16-g32", "w4a8", "w8a8", "w8a8-static"])
def test_a_llamas_block_loses_less_than_by_nearest(
    tiny_model: PreTrainedModel, scheme: str
) -> None:
    layer = tiny_model.model.layers[0].requires_grad_(False)
    random = torch.Generator().manual_seed(0)
    calls: list[Call] = []

    def note(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        calls.append(Call(args[0], args[1:], kwargs))

    handle = layer.register_forward_pre_hook(note, with_kwargs=True)
    with torch.no_grad():
        for _ in range(8):
            tiny_model(torch.randint(0, 200, (1, 64), generator=random), use_cache=False)
    handle.remove()
    before = {name: one.clone() for name, one in layer.state_dict().items()}
    wanted = {
        name: LayerFormat(weight=SCHEMES[scheme].weight, activation=SCHEMES[scheme].activation)
        for name, one in layer.named_modules()
        if isinstance(one, nn.Linear)
    }
    outputs = Block("", layer, {}, calls)
    float_outputs = [outputs.run(call) for call in calls]
    losses = {}
    for way in ("nearest", "gptq"):
        layer.load_state_dict(before)
        block = Block("", layer, wanted, calls)
        if way == "nearest":
            for name, format in wanted.items():
                block.settle(name, find_grid(block.weight(name), format.weight))
        else:
            assert gptq.quantize(block, gptq.Options(), find_grid) == []
        losses[way] = sum(
            float((block.run(call) - output).square().sum())
            for call, output in zip(calls, float_outputs, strict=True)
        )
        for name, one in block.settled().items():
            layer.set_submodule(name, one.plain())
    assert losses["gptq"] < 0.9 * losses["nearest"]


def test_one_token_is_enough_and_remarked_on() -> None:
    block = block_of(INT4, [correlated(1)])
    weight_OI, input_TI = block.weight("q").clone(), correlated(1)
    (remark,) = gptq.settle(block, ("q",), RANGE, find_grid)
    assert remark == f"q: 1 calibration tokens for {WIDTH} inputs"
    nearest_OI = dequantize(numerics.round_to_nearest(weight_OI, INT4))
    ours, theirs = (
        float(((weight_OI - one) @ input_TI.T).norm()) for one in (results(block)["q"], nearest_OI)
    )
    assert ours < 0.5 * theirs


def test_dead_inputs_are_rounded_to_nearest_and_remarked_on() -> None:
    inputs_TI = correlated(200)
    inputs_TI[:, [3, 17]] = 0.0
    block = block_of(INT4, [inputs_TI])
    weight_OI = block.weight("q").clone()
    (remark,) = gptq.settle(block, ("q", "k"), RANGE, find_grid)
    assert "q, k: 2 of 32 inputs are zero" in remark
    nearest_OI = dequantize(numerics.round_to_nearest(weight_OI, INT4))
    assert torch.equal(results(block)["q"][:, [3, 17]], nearest_OI[:, [3, 17]])
    assert not torch.equal(results(block)["q"], nearest_OI)


@pytest.mark.parametrize("grid", ["searched", "range"])
def test_inputs_of_zero_leave_rounding_to_nearest(grid: Any) -> None:
    block = block_of(INT4, [torch.zeros(40, WIDTH)])
    weight_OI = block.weight("q").clone()
    (remark,) = gptq.settle(block, ("q",), gptq.Options(grid=grid), find_grid)
    assert remark == "q: all inputs are zero on the calibration data; rounded to nearest"
    chosen = block.settled()["q"].rounding.grid(weight_OI)
    assert torch.equal(results(block)["q"], dequantize(round_to(weight_OI, chosen, INT4)))


@pytest.mark.parametrize("number", [float("nan"), float("inf"), 1e30])
def test_inputs_that_are_not_finite_name_the_layer(number: float) -> None:
    inputs_TI = correlated(40)
    inputs_TI[7, 5] = number
    with pytest.raises(QuantshipError, match="inputs of q are not finite"):
        gptq.quantize(block_of(INT4, [correlated(40), inputs_TI]), gptq.Options(), find_grid)


def test_damping_is_raised_where_it_has_to_be() -> None:
    block = block_of(INT4, [correlated(1) + torch.zeros(40, 1)])
    (remark, *_) = gptq.settle(block, ("q",), gptq.Options(damping=1e-9), find_grid)
    assert "q: the Hessian is not positive definite at damping 1e-09; raised to 1e-" in remark


def test_what_no_damping_helps_is_rounded_to_nearest(monkeypatch: pytest.MonkeyPatch) -> None:
    # X'X is never that far from positive definite; a matrix that is stands in for it.
    hessian_II = torch.full((WIDTH, WIDTH), -1.0).fill_diagonal_(1.0)
    monkeypatch.setattr(compensation, "hessian", lambda inputs: (hessian_II, 100))
    block = block_of(INT4)
    weight_OI = block.weight("q").clone()
    (remark,) = gptq.settle(block, ("q",), RANGE, find_grid)
    assert "q: the Hessian is not positive definite even at damping 1; rounded" in remark
    assert torch.equal(results(block)["q"], dequantize(numerics.round_to_nearest(weight_OI, INT4)))


def test_what_is_no_linear_layer_is_rounded_to_nearest_and_remarked_on() -> None:
    layers = nn.Sequential(nn.Embedding(40, WIDTH), nn.Linear(WIDTH, 8))
    wanted = {name: LayerFormat(weight=INT4) for name in ("0", "1")}
    block = block_of(wanted, [torch.arange(40)], layers)
    table = block.weight("0").clone()
    (remark,) = gptq.quantize(block, gptq.Options(), find_grid)
    assert remark == "0 is no linear layer and was rounded to nearest"
    assert torch.equal(results(block)["0"], dequantize(numerics.round_to_nearest(table, INT4)))
    assert results(block).keys() == {"0", "1"}


def test_no_calls_are_an_error() -> None:
    with pytest.raises(ValueError, match="no calibration data"):
        gptq.quantize(block_of(INT4, []), gptq.Options(), find_grid)
