"""A block hands out what its layers see, and a settled layer computes with its codes."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from quantship.algorithms.block import Block, Call
from quantship.quant.modules import FakeQuantLinear
from quantship.quant.numerics import dequantize, fake_quantize_input, round_to
from quantship.quant.ranges import find_grid
from quantship.quant.scheme import SCHEMES, LayerFormat, Scheme

WIDTH = 32


class Gated(nn.Module):
    """Two layers that share an input, and one that reads what they make."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(WIDTH)
        self.down = nn.Linear(WIDTH, WIDTH)
        self.gate = nn.Linear(WIDTH, WIDTH)
        self.up = nn.Linear(WIDTH, WIDTH)

    def forward(self, hidden: Tensor, factor: float = 1.0) -> Tensor:
        """Hidden states in and out."""
        normed = self.norm(hidden)
        inner = self.gate(normed).sigmoid() * self.up(normed)
        result: Tensor = hidden + factor * self.down(inner)
        return result


def format_of(scheme: str | Scheme) -> LayerFormat:
    found = SCHEMES[scheme] if isinstance(scheme, str) else scheme
    return LayerFormat(weight=found.weight, activation=found.activation)


@pytest.fixture
def module() -> Gated:
    torch.manual_seed(0)
    return Gated().requires_grad_(False)


def make_block(
    module: nn.Module, scheme: str = "w4a16-g32", *, corrects_bias: bool = False
) -> Block:
    calls = [Call(torch.randn(1, 5 + index, WIDTH), kwargs={"factor": 2.0}) for index in range(3)]
    formats = {f"layers.7.{name}": format_of(scheme) for name in ("down", "gate", "up")}
    return Block("layers.7", module, formats, calls, corrects_bias=corrects_bias)


def test_groups_come_in_running_order_with_layers_of_one_input_together(module: Gated) -> None:
    assert make_block(module).groups() == [
        ("layers.7.gate", "layers.7.up"),
        ("layers.7.down",),
    ]


def test_a_layer_that_never_runs_is_named(module: Gated) -> None:
    module.spare = nn.Linear(WIDTH, WIDTH)
    block = make_block(module)
    spare = Block(
        "layers.7", module, {**block.formats, "layers.7.spare": format_of("w8a16")}, block.calls
    )
    with pytest.raises(ValueError, match=r"no calibration data reached layers\.7\.spare"):
        spare.groups()
    with pytest.raises(ValueError, match=r"no calibration data reached layers\.7\.spare"):
        list(spare.inputs("layers.7.spare"))


def test_inputs_are_what_reaches_the_layer(module: Gated) -> None:
    block = make_block(module)
    for call, input_TI in zip(block.calls, block.inputs("layers.7.up"), strict=True):
        assert torch.equal(input_TI, module.norm(call.hidden)[0])


def test_inputs_of_dynamic_ranges_come_through_their_grid(module: Gated) -> None:
    block, activation = make_block(module, "w4a8"), format_of("w4a8").activation
    assert activation is not None
    for call, input_TI in zip(block.calls, block.inputs("layers.7.up"), strict=True):
        assert torch.equal(input_TI, fake_quantize_input(module.norm(call.hidden)[0], activation))


def test_layers_after_a_settled_one_see_its_rounding(module: Gated) -> None:
    block, fmt = make_block(module), format_of("w4a16-g32").weight
    before = next(block.inputs("layers.7.down"))
    weight_OI = block.weight("layers.7.up").clone()
    grid = find_grid(weight_OI, fmt)
    block.settle("layers.7.up", grid)
    assert isinstance(block.layer("layers.7.up"), FakeQuantLinear)
    after = next(block.inputs("layers.7.down"))
    assert not torch.equal(before, after)
    rounded_OI = dequantize(round_to(weight_OI, grid, fmt))
    normed = module.norm(block.calls[0].hidden)
    expected = module.gate(normed).sigmoid() * nn.functional.linear(
        normed, rounded_OI, module.up.bias
    )
    assert torch.equal(after, expected[0])


def test_a_weight_that_is_given_is_the_one_that_is_rounded(module: Gated) -> None:
    block, fmt = make_block(module), format_of("w4a16-g32").weight
    given = torch.randn(WIDTH, WIDTH)
    grid = find_grid(given, fmt)
    block.settle("layers.7.up", grid, given)
    layer = block.settled()["layers.7.up"]
    codes = layer.rounding.codes(block.weight("layers.7.up"))
    assert torch.equal(codes.codes_OI, round_to(given, grid, fmt).codes_OI)


@pytest.mark.parametrize("scheme", ["w4a16-g32", "w4a8"])
def test_a_corrected_bias_restores_the_mean_output(module: Gated, scheme: str) -> None:
    block, fmt = make_block(module, scheme, corrects_bias=True), format_of(scheme).weight
    inputs = torch.cat(list(block.inputs("layers.7.up")))
    wanted = (inputs @ block.weight("layers.7.up").t() + module.up.bias).mean(dim=0)
    grid = find_grid(block.weight("layers.7.up"), fmt)
    block.settle("layers.7.up", grid)
    rounded_OI = dequantize(round_to(block.weight("layers.7.up"), grid, fmt))
    plain = (inputs @ rounded_OI.t()).mean(dim=0)
    assert block.corrected == ["layers.7.up"]
    assert torch.allclose(plain + module.up.bias, wanted, atol=1e-5)
    assert not torch.allclose(plain + Gated().up.bias, wanted, atol=1e-3)


def test_a_static_range_rounds_nothing_before_it_is_known(module: Gated) -> None:
    block, fmt = make_block(module, "w8a8-static"), format_of("w8a8-static").weight
    for names in block.groups():
        for name in names:
            block.settle(name, find_grid(block.weight(name), fmt))
    assert torch.isfinite(block.run(block.calls[0])).all()
