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
from torchao.quantization.quant_primitives import (
    MappingType,
    choose_qparams_affine,
    quantize_affine,
)

from quantship.exporters import decoder
from quantship.exporters.lowering import Lowering, reject
from quantship.quant import checkpoint
from quantship.quant.modules import formats
from quantship.quant.numerics import Codes, code_range
from quantship.quant.scheme import SCHEMES, Scheme, WeightFormat

Array = NDArray[Any]

INTEGER = [scheme for scheme in SCHEMES.values() if reject(scheme, "integer") is None]
NBITS = [scheme for scheme in SCHEMES.values() if reject(scheme, "nbits") is None]
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


def torchaos_integers(values: Array) -> tuple[Array, Array, Array]:
    """Codes, scales and zero points that torchao gives to tokens."""
    tokens = torch.from_numpy(values)
    block, limits = (1, values.shape[1]), {"quant_min": -128, "quant_max": 127}
    scale, zero_point = choose_qparams_affine(
        tokens,
        MappingType.ASYMMETRIC,
        block,
        torch.int8,
        zero_point_dtype=torch.int8,
        **limits,
    )
    quantized = quantize_affine(tokens, block, scale, zero_point, torch.int8, **limits)
    return quantized.numpy(), scale.numpy(), zero_point.numpy()


def product_of_integers(one: Any, values: Array) -> Array:
    """Output of a layer with its input quantized by torchao, summed in 64-bit integers: (T, O)."""
    quantized, scale, zero_point = torchaos_integers(values)
    sums = (quantized.astype(np.int64) - zero_point[:, None]) @ one.codes_OI.T
    product: Array = sums.astype(np.float32) * (scale[:, None] * one.scale_OG[:, 0])
    return product


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("scheme", INTEGER, ids=lambda one: one.name)
def test_integer_layers_quantize_their_input_as_torchao_does(
    workshop: Any, cut_layer: Any, scheme: Scheme, name: str
) -> None:
    one = cut_layer(
        workshop.export(scheme, "integer", "untied"), workshop.checkpoint(scheme, "untied"), name
    )
    values = inputs(one.width)
    unsigned, scale, shift = one.run(
        values, *(f"{one.input}/tokens/{part}" for part in ("codes", "scale", "shift"))
    )
    expected, expected_scale, expected_zero_point = torchaos_integers(values)
    assert unsigned.dtype == np.uint8
    assert np.array_equal(unsigned.astype(np.int64) - 128, expected)
    assert np.array_equal(scale[:, 0].view(np.int32), expected_scale.view(np.int32))
    assert np.array_equal(-shift[:, 0] - 128, expected_zero_point)


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("scheme", INTEGER, ids=lambda one: one.name)
def test_integer_layers_add_up_exactly(
    workshop: Any, cut_layer: Any, scheme: Scheme, name: str
) -> None:
    one = cut_layer(
        workshop.export(scheme, "integer", "untied"), workshop.checkpoint(scheme, "untied"), name
    )
    values = inputs(one.width)
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
    sizes = replace(one, codes_OI=np.abs(one.codes_OI))
    smallest = np.full(one.width, 127 * np.finfo(np.float32).smallest_normal)
    rounding: Array = 1e-5 * sizes.exact(np.abs(values)) + sizes.exact(smallest[None])
    return rounding


@pytest.mark.parametrize("name", [*LAYERS, "lm_head"])
@pytest.mark.parametrize("scheme", NBITS, ids=lambda one: one.name)
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
    scales = torch.full((num_out, width // (fmt.group_size or width)), 0.01)
    return Codes(patterns[torch.arange(num_out) % len(patterns)], scales)


@pytest.fixture(scope="module")
def extreme(
    workshop: Any, tiny_tokenizer: Any, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[Scheme, Lowering], tuple[Path, Path]]:
    """Export and checkpoint of a model made of extreme codes, each made once."""

    @cache
    def source(scheme: Scheme) -> Path:
        path: Path = tmp_path_factory.mktemp("extreme")
        model = workshop.model("untied")
        codes_by_name = {
            name: extreme_codes(tuple(model.get_parameter(f"{name}.weight").shape), fmt)
            for name, (fmt, _) in formats(model, scheme).items()
        }
        checkpoint.save(model, scheme, codes_by_name, path)
        tiny_tokenizer.save_pretrained(path)
        return path

    @cache
    def made(scheme: Scheme, lowering: Lowering) -> tuple[Path, Path]:
        path: Path = tmp_path_factory.mktemp("extreme")
        decoder.export(source(scheme), lowering, scheme.name, path)
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


@pytest.mark.parametrize("name", [*LAYERS, "lm_head"])
@pytest.mark.parametrize(
    ("scheme", "lowering"),
    [(scheme, "integer") for scheme in INTEGER] + [(scheme, "nbits") for scheme in NBITS],
    ids=lambda value: getattr(value, "name", value),
)
def test_sums_of_extreme_codes_do_not_saturate(
    extreme: Any, cut_layer: Any, scheme: Scheme, lowering: Lowering, name: str
) -> None:
    exported, source = extreme(scheme, lowering)
    one = cut_layer(exported, source, name)
    fmt = scheme.embedding if name == "lm_head" else scheme.weight
    assert fmt is not None
    assert set(np.unique(one.codes_OI)) == set(code_range(fmt.bits))
    values = extreme_inputs(one.width)
    (output,) = one.run(values)
    # Symmetric rounding puts inputs of one size on its grid; the asymmetric one has its own grid.
    expected = product_of_integers(one, values) if one.block_size is None else one.exact(values)
    assert (np.abs(output - expected) <= float_rounding(one, values)).all()
