from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from quantship.algorithms import rtn
from quantship.algorithms.block import Block, Call
from quantship.blocks import ranges
from quantship.errors import QuantshipError
from quantship.quant.modules import input_grids
from quantship.quant.numerics import choose_grid
from quantship.quant.scheme import SCHEMES, LayerFormat
from quantship.quant.statistics import InputStatistics, Watch
from quantship.recipe.rounding_options import Calibration
from quantship.stages.statistics import observe

pytestmark = pytest.mark.usefixtures("one_thread")

WIDTH = 16
STATIC = LayerFormat(
    weight=SCHEMES["w8a8-static"].weight, activation=SCHEMES["w8a8-static"].activation
)
KINDS = ("minmax", "moving_average", "percentile", "mse", "entropy")


class Routed(nn.Module):
    """Two layers in a row, and one that sees only what is positive."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)
        self.seldom = nn.Linear(WIDTH, WIDTH)

    def forward(self, hidden: Tensor) -> Tensor:
        """Hidden states in and out."""
        inner = self.second(self.first(hidden).relu())
        self.seldom(hidden[hidden[:, 0] > 0])
        output: Tensor = hidden + inner
        return output


def settled(calls: list[Call]) -> Block:
    torch.manual_seed(0)
    names = [f"layers.3.{name}" for name in ("first", "second", "seldom")]
    module = Routed().requires_grad_(False)
    block = Block("layers.3", module, dict.fromkeys(names, STATIC), calls)
    rtn.quantize(block, rtn.Options(), choose_grid)
    return block


def calls(sign: float = 1.0) -> list[Call]:
    generator = torch.Generator().manual_seed(0)
    parts = [torch.randn(40, WIDTH, generator=generator) for _ in range(3)]
    for part in parts:
        part[:, 0] = part[:, 0].abs() * sign
    return [Call(part) for part in parts]


def known() -> dict[str, InputStatistics]:
    torch.manual_seed(0)
    return observe([Block("layers.3", Routed(), {}, calls())])


@pytest.mark.parametrize("kind", KINDS)
def test_ranges_of_calls_are_what_reaches_the_layers(kind: str) -> None:
    block, options = settled(calls()), Calibration.model_validate({"range": kind})
    assert ranges.fix(block, options) == []
    seen = {"first": InputStatistics()}
    watch = Watch(seen)
    for look in (watch.see, watch.count):
        for call in calls():
            look("first", call.hidden)
    assert STATIC.activation is not None
    expected = seen["first"].grid(options, STATIC.activation)
    assert torch.equal(input_grids(block.module)["first"].scale, expected.scale)
    assert len(input_grids(block.module)) == 3


def test_ranges_that_are_known_need_no_calls() -> None:
    block, layers = settled([]), known()
    for name, one in layers.items():
        one.histogram = None
        assert one.num_tokens == 120, name
    ranges.fix(block, Calibration(range="minmax"), layers)
    for name, grid in input_grids(block.module).items():
        expected = layers[f"layers.3.{name}"].grid(Calibration(range="minmax"), STATIC.activation)  # type: ignore[arg-type]
        assert torch.equal(grid.scale, expected.scale)


@pytest.mark.parametrize("is_known", [True, False])
def test_inputs_are_rounded_from_then_on(is_known: bool) -> None:
    block = settled([] if is_known else calls())
    before = block.run(calls()[0])
    ranges.fix(block, Calibration(range="minmax"), known() if is_known else None)
    after = block.run(calls()[0])
    assert not torch.equal(before, after)
    assert (before - after).abs().max() < 0.1


def test_a_layer_that_no_data_reached_is_named() -> None:
    with pytest.raises(ValueError, match=r"no calibration data reached layers\.3\.seldom"):
        ranges.fix(settled(calls(sign=-1.0)), Calibration())
    layers = known()
    del layers["layers.3.seldom"]
    with pytest.raises(ValueError, match=r"no calibration data reached layers\.3\.seldom"):
        ranges.fix(settled([]), Calibration(), layers)


def test_nan_is_an_error_that_names_the_layer() -> None:
    broken = calls()
    broken[1].hidden[3, 1] = float("nan")
    with pytest.raises(QuantshipError, match=r"NaN or infinity of the input of 'layers\.3\.first'"):
        ranges.fix(settled(broken), Calibration())


def test_poor_data_is_remarked_upon() -> None:
    one = [Call(call.hidden[:1]) for call in calls()[:1]]
    assert ranges.fix(settled(one), Calibration()) == ["calibration saw no more than 1 tokens"]
    dead = [Call(torch.ones(50, WIDTH)) for _ in range(2)]
    (remark,) = ranges.fix(settled(dead), Calibration())
    assert "one number only" in remark
    assert "layers.3.first" in remark
