"""What layers of standard operators compute, in three runtimes."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
import torch
from numpy.typing import NDArray

from quantship.exporters.targets import Target
from quantship.quant import numerics
from quantship.quant.scheme import ActivationFormat, WeightFormat
from quantship.quant.tensors import StoredCodes

Array = NDArray[Any]
TOKENS = ActivationFormat()
SYMMETRIC = ActivationFormat(symmetric=True)
TENSOR = ActivationFormat(granularity="per_tensor")
STATIC = ActivationFormat(granularity="per_tensor", ranges="static")
BY_ROW = WeightFormat(bits=8)
INPUTS = [None, TOKENS, SYMMETRIC, TENSOR, STATIC]
TARGETS: list[Target] = ["x86", "x86-vnni", "arm", "cuda", "portable"]


def values(width: int = 96, tokens: int = 7) -> Array:
    """Inputs of (batch, sequence, width): a token of zeros, one above zero, and outliers."""
    x = np.random.default_rng(2).standard_normal((2, tokens, width)).astype(np.float32)
    x[0, 1], x[0, 2], x[1, 0, 3] = 0, np.abs(x[0, 2]), 50
    return x


def trained(x: Array, one: StoredCodes) -> Array:
    """The product that the stated arithmetic gives, in float64."""
    given = torch.from_numpy(x)
    if one.input_grid is not None:
        assert one.activation is not None
        given = (static_codes(x, one) - (one.input_grid.zero or 0)) * one.input_grid.scale
    elif one.activation is not None and one.codes.scale_OG.shape[1] == 1:
        given = numerics.fake_quantize_input(given, one.activation)
    product: Array = given.double().numpy() @ numerics.dequantize(one.codes).double().numpy().T
    return product


def static_codes(x: Array, one: StoredCodes) -> torch.Tensor:
    """Signed codes of a static input, by a division."""
    assert one.input_grid is not None
    scale, zero = one.input_grid
    steps = (torch.from_numpy(x) / scale).round()
    return (steps + (0 if zero is None else zero)).clamp(-128, 127)


weights = pytest.mark.parametrize(
    "weight",
    [
        *(WeightFormat(bits=bits) for bits in range(2, 9)),
        *(WeightFormat(bits=bits, symmetric=False) for bits in range(2, 9)),
        *(WeightFormat(bits=4, group_size=group) for group in (1, 2, 16, 24, 32, 48, 96)),
        *(WeightFormat(bits=8, group_size=group, symmetric=False) for group in (8, 32)),
        WeightFormat(bits=3, group_size=16, symmetric=False, scale_dtype="bfloat16"),
        WeightFormat(bits=8, granularity="per_tensor"),
    ],
    ids=lambda one: (
        f"w{one.bits} {one.granularity} {one.group_size or ''}"
        f"{'' if one.symmetric else ' asymmetric'}"
    ),
)


@weights
@pytest.mark.parametrize("activation", [None, TOKENS], ids=["float", "tokens"])
@pytest.mark.parametrize("shape", [(40, 96), (33, 96), (3, 192)], ids=str)
def test_weights_are_torchs_to_the_bit_in_every_runtime(
    part: Any,
    multiplied: Any,
    weight: WeightFormat,
    activation: ActivationFormat | None,
    shape: tuple[int, int],
) -> None:
    one = part(weight, activation, shape=shape)
    drawn = multiplied(one).give("layer/weight")
    assert drawn.holds(one)
    expected = numerics.dequantize(one.codes).float().numpy().T
    for (found,) in drawn.run(x=values(shape[1])).values():
        assert np.array_equal(found, expected)


@pytest.mark.parametrize("shape", [(40, 97), (5, 9), (7, 1), (1, 32), (1, 1)], ids=str)
@pytest.mark.parametrize("activation", INPUTS, ids=lambda one: repr(one)[:60])
@pytest.mark.parametrize("bits", [4, 8])
def test_odd_shapes_compute_what_is_stated(
    part: Any,
    multiplied: Any,
    shape: tuple[int, int],
    activation: ActivationFormat | None,
    bits: int,
) -> None:
    one = part(WeightFormat(bits=bits), activation, shape=shape)
    drawn = multiplied(one).give("y")
    assert drawn.holds(one)
    x = values(max(shape[1], 4))[..., : shape[1]].copy()
    check(drawn, x, trained(x, one), fused=0 if one.activation else 0.05)


def check(drawn: Any, x: Array, expected: Array, *, fused: float) -> None:
    """Hold all runtimes against a product; ``fused`` is what a rounding of inputs may add."""
    size = np.abs(expected).max()
    for name, (found,) in drawn.run(x=x).items():
        error = np.abs(found - expected).max() / size
        assert error < (2e-5 + fused if name == "fused" else 2e-5), name


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("activation", INPUTS, ids=lambda one: repr(one)[:60])
@pytest.mark.parametrize("symmetric", [True, False])
def test_products_are_those_of_the_stated_arithmetic(
    part: Any, multiplied: Any, activation: ActivationFormat | None, symmetric: bool, target: Target
) -> None:
    one = part(WeightFormat(bits=8, symmetric=symmetric), activation)
    drawn = multiplied(one, target=target).give("y")
    assert drawn.holds(one)
    x = values()
    check(drawn, x, trained(x, one), fused=0 if activation else 0.05)


@pytest.mark.parametrize("target", ["portable", "cuda"])
@pytest.mark.parametrize("activation", INPUTS[1:], ids=lambda one: repr(one)[:60])
def test_codes_of_inputs_are_torchs_to_the_bit(
    part: Any, multiplied: Any, activation: ActivationFormat, target: Target
) -> None:
    one, x = part(BY_ROW, activation), values()
    drawn = multiplied(one, target=target)
    rounding = next(node for node in drawn.model.graph if node.op_type == "QuantizeLinear")
    signed = activation.ranges == "static" and target == "cuda"
    drawn.give(str(rounding.outputs[0].name), ir.DataType.INT8 if signed else ir.DataType.UINT8)
    if one.input_grid is not None:
        expected = static_codes(x, one)
    else:
        grid = numerics.dynamic_grid(torch.from_numpy(x), activation)
        expected = numerics.input_codes(torch.from_numpy(x), grid)
    for (found,) in drawn.run(x=x).values():
        assert np.array_equal(found.astype(int) - (0 if signed else 128), expected.numpy())


def test_matrices_of_one_layout_lie_one_below_the_other(part: Any, multiplied: Any) -> None:
    upper = part(WeightFormat(bits=4, group_size=16, symmetric=False), name="upper")
    lower = part(WeightFormat(bits=4, group_size=16, symmetric=False), shape=(9, 96), name="lower")
    drawn = multiplied(upper, lower).give("y")
    assert drawn.holds(upper, lower)
    x = values()
    expected = np.concatenate([trained(x, upper), trained(x, lower)], axis=-1)
    check(drawn, x, expected, fused=0.05)
