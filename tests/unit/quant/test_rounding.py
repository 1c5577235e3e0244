from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from quantship.quant.differences import differing
from quantship.quant.modules import FakeQuantLinear, codes_of, fake_quantized, prepare_qat
from quantship.quant.numerics import (
    Grid,
    choose_grid,
    code_range,
    dequantize,
    input_grid,
    round_to,
    round_to_nearest,
)
from quantship.quant.rounding import (
    InputRounding,
    WeightRounding,
    keep_codes,
    weights_changed,
)
from quantship.quant.scheme import SCHEMES, ActivationFormat, LayerFormat, WeightFormat

pytestmark = pytest.mark.usefixtures("one_thread")

INT4 = WeightFormat(bits=4, group_size=16)
ASYMMETRIC = WeightFormat(bits=4, group_size=16, symmetric=False)
STATIC = ActivationFormat(granularity="per_tensor", ranges="static")


@pytest.fixture
def weight() -> Tensor:
    return torch.randn(8, 32, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def layer() -> FakeQuantLinear:
    torch.manual_seed(0)
    return FakeQuantLinear(nn.Linear(32, 8), LayerFormat(weight=INT4)).train()


@pytest.fixture
def keeping(layer: FakeQuantLinear) -> FakeQuantLinear:
    """The layer, with codes that are kept as they are in training."""
    keep_codes(layer)
    used(layer)
    return layer


@pytest.fixture
def count(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows by one with each weight that is rounded."""
    calls: list[int] = []
    ours = WeightRounding.codes

    def counted(self: WeightRounding, weight_OI: Tensor) -> Any:
        calls.append(1)
        return ours(self, weight_OI)

    monkeypatch.setattr(WeightRounding, "codes", counted)
    return calls


def used(layer: FakeQuantLinear) -> Tensor:
    """The weight that a layer multiplies by, seen from outside."""
    output: Tensor = layer(torch.eye(layer.in_features)) - layer.bias
    return output.detach().t()


def assert_rounds_its_weight(layer: FakeQuantLinear) -> None:
    expected = dequantize(codes_of(nn.Sequential(layer))["0"])
    torch.testing.assert_close(used(layer), expected, rtol=0, atol=1e-6)


# Codes that are kept


def train(layer: FakeQuantLinear) -> None:
    layer(torch.randn(2, 32)).sum().backward()


def test_micro_batches_share_codes_where_they_are_kept(
    layer: FakeQuantLinear, count: list[int]
) -> None:
    for _ in range(3):
        train(layer)
    assert len(count) == 3
    keep_codes(layer)
    for _ in range(3):
        train(layer)
    assert len(count) == 4


def test_learned_grids_are_kept_too(layer: FakeQuantLinear, count: list[int]) -> None:
    keep_codes(layer)
    layer.rounding.set_grid(choose_grid(layer.weight.detach(), INT4), learned=True)
    for _ in range(3):
        train(layer)
    assert len(count) == 1


OPTIMIZERS: dict[str, Any] = {
    "sgd": lambda parameters: torch.optim.SGD(parameters, lr=0.1),
    "adamw": lambda parameters: torch.optim.AdamW(parameters, lr=0.1, foreach=False),
    "foreach": lambda parameters: torch.optim.AdamW(parameters, lr=0.1, foreach=True),
    "fused": lambda parameters: torch.optim.AdamW(parameters, lr=0.1, fused=True),
}


@pytest.mark.parametrize("learned", [False, True])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_an_optimizer_step_renews_codes(
    layer: FakeQuantLinear, count: list[int], name: str, learned: bool
) -> None:
    keep_codes(layer)
    if learned:
        layer.rounding.set_grid(choose_grid(layer.weight.detach(), INT4), learned=True)
    optimizer = OPTIMIZERS[name](layer.parameters())
    before = used(layer)
    for _ in range(2):
        for _ in range(2):
            train(layer)
        optimizer.step()
        optimizer.zero_grad()
        if name == "fused":  # leaves no trace
            weights_changed(layer)
    assert len(count) == 2  # the first was made by ``used``, when the weight was the same
    assert not torch.equal(used(layer), before)
    assert_rounds_its_weight(layer)


def test_a_step_of_the_scales_alone_renews_codes(keeping: FakeQuantLinear) -> None:
    keeping.rounding.set_grid(choose_grid(keeping.weight.detach(), INT4), learned=True)
    scale = keeping.rounding.scale
    assert isinstance(scale, nn.Parameter)
    before = used(keeping)
    optimizer = torch.optim.SGD([scale], lr=1e-3)
    keeping(torch.randn(2, 32)).square().sum().backward()
    optimizer.step()
    assert not torch.equal(used(keeping), before)
    assert_rounds_its_weight(keeping)
    assert torch.equal(codes_of(nn.Sequential(keeping))["0"].scale_OG, scale.detach())


def test_loading_a_state_renews_codes(keeping: FakeQuantLinear) -> None:
    before = used(keeping)
    state = {name: tensor + 0.5 for name, tensor in keeping.state_dict().items()}
    keeping.load_state_dict(state)
    assert not torch.equal(used(keeping), before)
    assert_rounds_its_weight(keeping)


@pytest.mark.parametrize("learned", [False, True])
def test_another_grid_renews_codes(keeping: FakeQuantLinear, learned: bool) -> None:
    for factor in (1.0, 0.5, 0.25):
        scale = choose_grid(keeping.weight.detach(), INT4).scale * factor
        keeping.rounding.set_grid(Grid(scale), learned=learned)
        assert_rounds_its_weight(keeping)


def test_setting_a_grid_forgets_codes_whatever_their_key(weight: Tensor) -> None:
    rounding = WeightRounding(INT4).train()
    keep_codes(rounding)
    for factor in (1.0, 0.5):
        grid = Grid(choose_grid(weight, INT4).scale * factor)
        rounding.set_grid(grid, learned=False)
        codes = rounding.cached_codes(lambda: weight, "the same key")
        assert torch.equal(codes.codes_OI, round_to(weight, grid, INT4).codes_OI)


def test_loading_another_grid_renews_codes(keeping: FakeQuantLinear) -> None:
    keeping.rounding.set_grid(choose_grid(keeping.weight.detach(), INT4), learned=False)
    used(keeping)
    state = keeping.state_dict()
    keeping.load_state_dict(state | {"rounding.scale": state["rounding.scale"] * 0.5})
    assert_rounds_its_weight(keeping)


@pytest.mark.parametrize("how", ["eval", "no_grad", "inference_mode"])
def test_nothing_is_kept_outside_of_training(keeping: FakeQuantLinear, how: str) -> None:
    used(keeping)
    keeping.train(how != "eval")
    guard = {"eval": torch.enable_grad, "no_grad": torch.no_grad}.get(how, torch.inference_mode)
    with guard():
        for _ in range(2):
            # Past autograd's eyes, as merging an adapter or loading a weight may do.
            keeping.weight.data.mul_(1.5)
            assert_rounds_its_weight(keeping)
            assert keeping.rounding._cached is None


def test_moving_a_layer_forgets_its_codes(keeping: FakeQuantLinear) -> None:
    used(keeping)
    keeping.to(torch.float64)
    assert keeping.rounding._cached is None
    assert keeping(torch.randn(2, 32, dtype=torch.float64)).dtype == torch.float64


def test_a_copy_has_codes_of_its_own(keeping: FakeQuantLinear) -> None:
    used(keeping)
    twin = copy.deepcopy(keeping)
    with torch.no_grad():
        twin.weight.mul_(2)
        twin.weight[0, 0] = 5.0
    assert_rounds_its_weight(twin)
    assert_rounds_its_weight(keeping)


# Grids


@pytest.mark.parametrize("fmt", [INT4, ASYMMETRIC], ids=["symmetric", "asymmetric"])
def test_a_rounding_without_a_grid_rounds_to_nearest(weight: Tensor, fmt: WeightFormat) -> None:
    rounding = WeightRounding(fmt)
    assert not rounding.is_learned
    assert rounding.state_dict() == {}
    assert not differing({"": rounding.codes(weight)}, {"": round_to_nearest(weight, fmt)})


@pytest.mark.parametrize("learned", [False, True])
@pytest.mark.parametrize("fmt", [INT4, ASYMMETRIC], ids=["symmetric", "asymmetric"])
def test_a_grid_that_was_set_is_kept_whatever_the_weight(
    weight: Tensor, fmt: WeightFormat, learned: bool
) -> None:
    rounding, grid = WeightRounding(fmt), choose_grid(weight, fmt)
    rounding.set_grid(grid, learned=learned)
    assert rounding.is_learned == learned
    assert len(list(rounding.parameters())) == learned * (1 if fmt.symmetric else 2)
    assert rounding.state_dict().keys() == ({"scale"} if fmt.symmetric else {"scale", "zero"})
    for factor in (1.0, 3.0):
        ours, expected = rounding.codes(weight * factor), round_to(weight * factor, grid, fmt)
        assert torch.equal(ours.codes_OI, expected.codes_OI)
        assert torch.equal(rounding.fake_quantize(weight * factor), dequantize(expected))


def test_setting_a_grid_leaves_the_given_one_alone(weight: Tensor) -> None:
    grid = choose_grid(weight, ASYMMETRIC)
    parts = [part for part in grid if part is not None]
    before = [part.clone() for part in parts]
    rounding = WeightRounding(ASYMMETRIC)
    rounding.set_grid(grid, learned=True)
    with torch.no_grad():
        for parameter in rounding.parameters():
            parameter.add_(1)
    assert all(torch.equal(one, other) for one, other in zip(before, parts, strict=True))


def test_trained_zero_points_are_used_as_whole_codes_and_keep_their_gradient(
    weight: Tensor,
) -> None:
    rounding = WeightRounding(ASYMMETRIC)
    scale, zero = choose_grid(weight, ASYMMETRIC)
    assert zero is not None
    rounding.set_grid(Grid(scale * 0.5, zero + 0.3), learned=True)
    used = rounding.grid(weight).zero
    assert used is not None
    assert torch.equal(used, zero)
    rounding.fake_quantize(weight).square().sum().backward()
    assert rounding.zero is not None
    assert rounding.zero.grad is not None
    assert rounding.zero.grad.any()
    with torch.no_grad():
        rounding.zero.add_(100)
    low, high = code_range(4)
    highest, scale_OG = rounding.grid(weight).zero, rounding.grid(weight).scale
    assert highest is not None
    assert torch.equal(highest, torch.full_like(scale_OG, high))
    with torch.no_grad():
        rounding.zero.sub_(200)
    lowest = rounding.grid(weight).zero
    assert lowest is not None
    assert torch.equal(lowest, torch.full_like(scale_OG, low))


def test_trained_scales_are_used_as_the_file_holds_them(weight: Tensor) -> None:
    fmt = INT4.model_copy(update={"scale_dtype": "bfloat16"})
    rounding = WeightRounding(fmt)
    exact = choose_grid(weight, INT4).scale * 1.001
    rounding.set_grid(Grid(exact), learned=True)
    assert rounding.scale is not None
    assert torch.equal(rounding.scale, exact)
    used = rounding.grid(weight).scale
    assert torch.equal(used, exact.bfloat16().float())
    assert not torch.equal(used, exact)
    rounding.fake_quantize(weight).square().sum().backward()
    assert rounding.scale.grad is not None
    assert rounding.scale.grad.all()


def test_a_scale_that_training_has_pushed_below_zero_is_still_one(weight: Tensor) -> None:
    rounding = WeightRounding(INT4)
    rounding.set_grid(Grid(torch.full((8, 2), -1.0)), learned=True)
    assert (rounding.grid(weight).scale > 0).all()
    assert torch.isfinite(rounding.fake_quantize(weight)).all()


def test_trained_grids_of_half_precision_weights_are_float32(weight: Tensor) -> None:
    rounding = WeightRounding(INT4)
    rounding.set_grid(choose_grid(weight.half(), INT4), learned=True)
    assert rounding.scale is not None
    assert rounding.scale.dtype == torch.float32
    assert rounding.fake_quantize(weight.half()).dtype == torch.float16


# Static inputs


@pytest.mark.parametrize("symmetric", [False, True])
def test_a_static_grid_can_be_trained(symmetric: bool) -> None:
    fmt = STATIC.model_copy(update={"symmetric": symmetric})
    rounding = InputRounding(fmt)
    with pytest.raises(RuntimeError, match="calibrate"):
        rounding.static_grid()
    grid = input_grid(torch.full((1, 1), -0.5), torch.full((1, 1), 1.0), fmt)
    rounding.set_grid(grid, learned=True)
    before = [parameter.detach().clone() for parameter in rounding.parameters()]
    assert len(before) == (1 if symmetric else 2)
    rates = zip(rounding.parameters(), (1e-4, 10.0), strict=False)  # of scale and zero point
    optimizer = torch.optim.SGD([{"params": [one], "lr": rate} for one, rate in rates])
    tokens = torch.randn(16, 8, generator=torch.Generator().manual_seed(0))
    errors = []
    for _ in range(20):
        rounded, used = rounding(tokens)
        assert used.zero is None or torch.equal(used.zero, used.zero.round())
        error = (rounded - tokens).square().sum()
        errors.append(error.item())
        optimizer.zero_grad()
        error.backward()
        optimizer.step()
    assert all(
        not torch.equal(one, other)
        for one, other in zip(before, rounding.parameters(), strict=True)
    )
    assert errors[-1] < errors[0]


def test_dynamic_inputs_have_no_state() -> None:
    rounding = InputRounding(ActivationFormat())
    assert rounding.static_grid() is None
    assert rounding.state_dict() == {}


# Learning


@pytest.mark.parametrize("name", ["w8a8", "w4a16-g32", "w4a16-g32-asymmetric", "w2a16-g32"])
def test_learned_grids_move_with_the_optimizer_and_codes_follow(
    tied: Any, name: str, tokens: Tensor
) -> None:
    model: Any = prepare_qat(tied, SCHEMES[name]).train()
    for layer, module in fake_quantized(model):
        grid = choose_grid(model.get_parameter(f"{layer}.weight").detach(), module.rounding.fmt)
        module.rounding.set_grid(grid, learned=True)
    before = codes_of(model)
    keep_codes(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    for _ in range(2):
        model(input_ids=tokens, labels=tokens).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    after = codes_of(model)
    for layer, module in fake_quantized(model):
        assert not torch.equal(after[layer].scale_OG, before[layer].scale_OG)
        assert not torch.equal(after[layer].codes_OI, before[layer].codes_OI)
        weight = model.get_parameter(f"{layer}.weight").detach()
        expected = round_to(
            weight, Grid(after[layer].scale_OG, after[layer].zero_OG), module.rounding.fmt
        )
        assert torch.equal(after[layer].codes_OI, expected.codes_OI)
