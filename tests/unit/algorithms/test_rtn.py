from __future__ import annotations

from functools import partial
from typing import get_args

import pytest
import torch
from torch import nn

from quantship.algorithms import rtn
from quantship.algorithms.block import Block
from quantship.quant.differences import differing
from quantship.quant.modules import codes_of, fake_quantized, prepare_qat
from quantship.quant.numerics import dequantize
from quantship.quant.ranges import find_grid
from quantship.quant.scheme import SCHEMES, LayerFormat, RangeName

pytestmark = pytest.mark.usefixtures("one_thread")

PERCENTILE = 90.0


def build() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 32)).requires_grad_(False)


def settled(scheme: str, reach: RangeName) -> Block:
    found = SCHEMES[scheme]
    format = LayerFormat(weight=found.weight, activation=found.activation)
    block = Block("", build(), {"0": format, "2": format})
    find = partial(find_grid, reach=reach, percentile=PERCENTILE)
    assert rtn.quantize(block, rtn.Options(), find) == []
    return block


@pytest.mark.parametrize("reach", get_args(RangeName))
@pytest.mark.parametrize("scheme", ["w4a16-g32", "w4a16-g32-asymmetric", "w8a8", "w8a8-static"])
def test_codes_are_those_that_training_would_begin_with(scheme: str, reach: RangeName) -> None:
    model = prepare_qat(build(), SCHEMES[scheme])
    for _, layer in fake_quantized(model):
        weight_OI = layer.weight.detach()
        grid = find_grid(weight_OI, layer.rounding.fmt, reach, PERCENTILE)
        layer.rounding.set_grid(grid, learned=False)
    block = settled(scheme, reach)
    codes = {
        name: layer.rounding.codes(block.weight(name)) for name, layer in block.settled().items()
    }
    assert differing(codes, codes_of(model)) == []


@pytest.mark.parametrize("scheme", ["w4a16-g32", "w4a16-g32-asymmetric", "w8a16"])
def test_the_weight_becomes_the_numbers_of_its_codes(scheme: str) -> None:
    block = settled(scheme, "mse")
    for name, layer in block.settled().items():
        codes = layer.rounding.codes(block.weight(name))
        assert torch.equal(block.weight(name), dequantize(codes, torch.float32))


def test_ranges_differ() -> None:
    weights = [settled("w4a16-g32", reach).weight("0") for reach in get_args(RangeName)]
    for index, one in enumerate(weights):
        assert not any(torch.equal(one, other) for other in weights[:index])


def test_every_scheme_is_taken() -> None:
    assert all(rtn.reject(scheme, rtn.Options()) is None for scheme in SCHEMES.values())
