"""Each quantized layer of an exported model, cut out of it, computes what its integers say.

``integer``: the integers of the input are torchao's, and the sum is that of 64-bit integers.
``nbits``: onnxruntime rounds the input to int8, symmetrically, for each token and block; so the
output is off by at most half a step of each input times the weight it meets, and not at all where
the input lies on the grid.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torchao.quantization import Int8Tensor, PerRow, PerTensor
from torchao.quantization.quant_primitives import (
    MappingType,
    choose_qparams_affine,
    quantize_affine,
)

from quantship.exporters import decoder
from quantship.exporters.lowering import Lowering, reject
from quantship.quant import checkpoint
from quantship.quant.layers import formats
from quantship.quant.numerics import Codes, Grid, code_range
from quantship.quant.scheme import SCHEMES, ActivationFormat, Scheme, WeightFormat

Array = NDArray[Any]

FURTHER = (
    Scheme(
        name="symmetric per tensor",
        weight=WeightFormat(bits=8),
        activation=ActivationFormat(granularity="per_tensor", symmetric=True),
    ),
    Scheme(
        name="static symmetric, one scale a matrix",
        weight=WeightFormat(bits=8, granularity="per_tensor"),
        activation=ActivationFormat(granularity="per_tensor", ranges="static", symmetric=True),
    ),
    Scheme(
        name="asymmetric weights",
        weight=WeightFormat(bits=5, symmetric=False),
        activation=ActivationFormat(),
        embedding=WeightFormat(bits=4, group_size=16, symmetric=False),
    ),
)
QUANTIZED = (*SCHEMES.values(), *FURTHER)
INTEGER = [scheme for scheme in QUANTIZED if reject(scheme, "integer") is None]
NBITS = [scheme for scheme in QUANTIZED if reject(scheme, "nbits") is None]
LAYERS = ("attn/qkv_proj", "attn/o_proj", "mlp/gate_proj", "mlp/up_proj", "mlp/down_proj")


def inputs(width: int) -> Array:
    """Tokens of all kinds, of shape (T, I) in float32."""
    generator = np.random.default_rng(11)
    noise = generator.standard_normal((12, width)).astype(np.float32)
    # Values whose last bits decide between two codes: dividing by a scale is not multiplying.
    steps = np.array([0.1, 0.7, 1.3, 3.3, 1e-3, 77.0], np.float32)[:, None]
    near_ties = (np.linspace(-128, 126, width).round() + 0.5).astype(np.float32) * steps
    near_ties[:, :2] = np.array([127, -128], np.float32) * steps
    outlier = noise[0].copy()
    outlier[3] = 3e4
    tiny = np.finfo(np.float32).smallest_normal
    single = np.zeros(width, np.float32)
    single[-1] = -2.5
    rows = [
        *noise,
        *near_ties,
        np.zeros(width),
        -np.zeros(width),
        np.full(width, 3.7),
        np.full(width, -0.01),
        -np.abs(noise[1]) - 1,
        np.abs(noise[2]) + 5,
        noise[3] * 1e30,
        noise[4] * 1e-30,
        noise[5] * tiny,
        noise[6] * tiny / 64,
        np.where(np.arange(width) % 2, 1.0, -1.0),
        np.where(np.arange(width) % 2, 127.5, 0.5),
        outlier,
        single,
    ]
    return np.stack(rows).astype(np.float32)


def torchaos_integers(one: Any, values: Array) -> tuple[Array, Array, Array]:
    """Codes, scales and zero points of torchao for an input; the last two of shape (T, 1)."""
    tokens = torch.from_numpy(values)
    fmt: ActivationFormat = one.activation
    mapping = MappingType.SYMMETRIC if fmt.symmetric else MappingType.ASYMMETRIC
    if fmt.granularity == "per_token" and not fmt.symmetric:
        block, limits = (1, values.shape[1]), {"quant_min": -128, "quant_max": 127}
        scale, zero_point = choose_qparams_affine(
            tokens,
            mapping,
            block,
            torch.int8,
            zero_point_dtype=torch.int8,
            **limits,
        )
        quantized = quantize_affine(tokens, block, scale, zero_point, torch.int8, **limits)
    else:
        granularity = PerRow() if fmt.granularity == "per_token" else PerTensor()
        grid: list[Any] = [None, None]
        if one.input_grid is not None:
            zero = one.input_grid.zero
            grid = [one.input_grid.scale.view(1, 1), None if zero is None else zero.view(1, 1)]
        found = Int8Tensor.from_hp(tokens, granularity, mapping, *grid)
        quantized, scale, zero_point = found.qdata, found.scale, found.zero_point
    columns = (part.reshape(-1, 1).expand(len(values), 1) for part in (scale, zero_point))
    scale, zero_point = columns
    return quantized.numpy(), scale.numpy(), zero_point.numpy().astype(np.int64)


def product_of_integers(one: Any, values: Array) -> Array:
    """Output of a layer with its input quantized by torchao, summed in 64-bit integers: (T, O)."""
    quantized, scale, zero_point = torchaos_integers(one, values)
    sums = (quantized.astype(np.int64) - zero_point) @ one.codes_OI.T
    product: Array = sums.astype(np.float32) * (scale * one.scale_OG[:, 0])
    return product


def integer_inputs(one: Any) -> Array:
    """Tokens of all kinds; where they share a range, not so many that one sets it for all."""
    values = inputs(one.width)
    shared = one.activation.granularity == "per_tensor"
    return values[:14] if shared else values


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("scheme", INTEGER, ids=lambda one: one.name)
def test_integer_layers_quantize_their_input_as_torchao_does(
    workshop: Any, cut_layer: Any, scheme: Scheme, name: str
) -> None:
    one = cut_layer(
        workshop.export(scheme, "integer", "untied"), workshop.checkpoint(scheme, "untied"), name
    )
    values = integer_inputs(one)
    (unsigned,) = one.run(values, f"{one.quantized}/codes")
    expected, expected_scale, expected_zero_point = torchaos_integers(one, values)
    assert unsigned.dtype == np.uint8
    assert len(np.unique(unsigned)) > 50
    assert np.array_equal(unsigned.astype(np.int64) - 128, expected)
    if one.input_grid is None:
        (scale,) = one.run(values, f"{one.quantized}/scale")
        found = np.broadcast_to(scale.reshape(-1, 1), expected_scale.shape)
        assert np.array_equal(found, expected_scale)
    if one.input_grid is None and not one.activation.symmetric:
        (shift,) = one.run(values, f"{one.quantized}/shift")
        found = np.broadcast_to(-shift.reshape(-1, 1) - 128, expected_zero_point.shape)
        assert np.array_equal(found, expected_zero_point)


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("scheme", INTEGER, ids=lambda one: one.name)
def test_integer_layers_add_up_exactly(
    workshop: Any, cut_layer: Any, scheme: Scheme, name: str
) -> None:
    one = cut_layer(
        workshop.export(scheme, "integer", "untied"), workshop.checkpoint(scheme, "untied"), name
    )
    values = integer_inputs(one)
    (output,) = one.run(values)
    expected = product_of_integers(one, values)
    assert output.shape == expected.shape
    np.testing.assert_allclose(output, expected, rtol=1e-6, atol=0)


def rounding_bound(one: Any, values: Array) -> Array:
    """Largest error that rounding an input to int8 can cause: (T, O).

    A block whose largest value is ``a`` has steps of ``a / 127``; nothing is off by more than half
    of one.
    """
    assert one.block_size is not None
    num_blocks = -(-one.width // one.block_size)
    padding = num_blocks * one.block_size - one.width
    scale_OI = np.repeat(one.scale_OG, one.width // one.scale_OG.shape[1], axis=1).astype(float)
    weight_OI = np.pad(np.abs(one.codes_OI) * scale_OI, ((0, 0), (0, padding)))
    size_TI = np.pad(np.abs(values.astype(float)), ((0, 0), (0, padding)))
    half_step_TB = size_TI.reshape(len(values), num_blocks, -1).max(axis=2) / 254
    weight_OB = weight_OI.reshape(len(weight_OI), num_blocks, -1).sum(axis=2)
    bound: Array = half_step_TB @ weight_OB.T
    return bound


def float_rounding(one: Any, values: Array) -> Array:
    """What summing in float32 may add to an error: (T, O).

    Inputs too small for a scale that is a normal number may count as zero.
    """
    sizes = replace(one, codes_OI=np.abs(one.codes_OI) + one.largest_zero)
    smallest = np.full(one.width, 127 * np.finfo(np.float32).smallest_normal)
    rounding: Array = 1e-5 * sizes.exact(np.abs(values)) + sizes.exact(smallest[None])
    return rounding


@pytest.mark.parametrize(
    ("scheme", "name"),
    [
        pytest.param(scheme, name, id=f"{scheme.name}-{name}")
        for scheme in NBITS
        for name in (*LAYERS, "lm_head")
        if name != "lm_head" or scheme.embedding is not None
    ],
)
def test_nbits_layers_are_off_by_the_rounding_of_their_input_at_most(
    workshop: Any, cut_layer: Any, scheme: Scheme, name: str
) -> None:
    one = cut_layer(
        workshop.export(scheme, "nbits", "untied"), workshop.checkpoint(scheme, "untied"), name
    )
    values = inputs(one.width)
    (output,) = one.run(values)
    error = np.abs(output - one.exact(values))
    bound = rounding_bound(one, values)
    assert (error <= bound * (1 + 1e-3) + float_rounding(one, values)).all()
    ordinary = slice(0, 12)
    share = np.sqrt(np.mean(error[ordinary] ** 2)) / np.sqrt(np.mean(bound[ordinary] ** 2))
    assert share < 0.2  # half steps of random sign add up to far less than their sum


def extreme_codes(shape: tuple[int, int], fmt: WeightFormat) -> Codes:
    """Every code at an end of its range, in rows of several patterns."""
    low, high = code_range(fmt.bits)
    num_out, width = shape
    column = torch.arange(width)
    is_high = torch.stack(
        [column >= 0, column < 0, column % 2 == 0, column < width // 2, column % 4 < 2]
    )
    patterns = torch.where(is_high, high, low).to(torch.int8)
    codes_OI = patterns[torch.arange(num_out) % len(patterns)]
    scale = torch.full((num_out, width // (fmt.group_size or width)), 0.01).bfloat16().float()
    if fmt.symmetric:
        return Codes(codes_OI, scale)
    zero = torch.where(torch.arange(scale.numel()) % 3 == 0, low, high).view(scale.shape)
    return Codes(codes_OI, scale, zero.to(torch.int8))


@pytest.fixture(scope="module")
def extreme(
    workshop: Any, tiny_tokenizer: Any, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[Scheme, Lowering], tuple[Path, Path]]:
    """Export and checkpoint of a model made of extreme codes, each made once."""

    @cache
    def source(scheme: Scheme) -> Path:
        path: Path = tmp_path_factory.mktemp("extreme")
        model = workshop.model("untied")
        found = formats(model, scheme)
        codes_by_name = {
            name: extreme_codes(tuple(model.get_parameter(f"{name}.weight").shape), format.weight)
            for name, format in found.items()
        }
        grids = {
            name: Grid(torch.full((1, 1, 1), 1 / 127.5))
            for name, format in found.items()
            if format.activation is not None and format.activation.ranges == "static"
        }
        checkpoint.save(model, found, codes_by_name, grids, path)
        tiny_tokenizer.save_pretrained(path)
        return path

    @cache
    def made(scheme: Scheme, lowering: Lowering) -> tuple[Path, Path]:
        path: Path = tmp_path_factory.mktemp("extreme")
        decoder.export(source(scheme), lowering, scheme.name, path, "x86")
        return path, source(scheme)

    return made


def extreme_inputs(width: int) -> Array:
    """Tokens at the ends of their range, in the patterns of the extreme weights and others."""
    column = np.arange(width)
    rows = [
        np.ones(width),
        -np.ones(width),
        np.where(column % 2 == 0, 1.0, -1.0),
        np.where(column % 2 == 0, -1.0, 1.0),
        np.where(column < width // 2, 1.0, -1.0),
        np.where(column % 4 < 2, 1.0, -1.0),
    ]
    return np.stack([size * row for row in rows for size in (1.0, 0.003, 1e4)]).astype(np.float32)


@pytest.mark.parametrize(
    ("scheme", "lowering", "name"),
    [
        pytest.param(scheme, lowering, name, id=f"{scheme.name}-{lowering}-{name}")
        for lowering, schemes in (("integer", INTEGER), ("nbits", NBITS))
        for scheme in schemes
        for name in (*LAYERS, "lm_head")
        if name != "lm_head" or scheme.embedding is not None
    ],
)
def test_sums_of_extreme_codes_do_not_saturate(
    extreme: Any, cut_layer: Any, scheme: Scheme, lowering: Lowering, name: str
) -> None:
    exported, source = extreme(scheme, lowering)
    one = cut_layer(exported, source, name)
    if scheme.weight.symmetric:
        assert len(np.unique(one.codes_OI)) == 2
    values = extreme_inputs(one.width)
    (output,) = one.run(values)
    # Symmetric rounding puts inputs of one size on its grid; the asymmetric one has its own grid.
    expected = product_of_integers(one, values) if one.block_size is None else one.exact(values)
    assert (np.abs(output - expected) <= float_rounding(one, values)).all()
