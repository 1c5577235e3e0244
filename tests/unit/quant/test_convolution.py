from __future__ import annotations

import pytest
import torch
from torch import nn

from quantship.quant.calibration import calibrate
from quantship.quant.convolution import FakeQuantConv2d, QuantizedConv2d, unserved
from quantship.quant.layers import formats
from quantship.quant.modules import codes_of, input_grids, prepare_qat, restore_float
from quantship.quant.numerics import dequantize, round_to_nearest
from quantship.quant.scheme import SCHEMES, LayerFormat, Scheme
from quantship.recipe.rounding_options import Calibration

pytestmark = pytest.mark.usefixtures("one_thread")
STATIC = SCHEMES["w8a8-static"]
KINDS = [
    {},
    {"bias": False},
    {"stride": 2, "padding": 1},
    {"dilation": 2, "groups": 2},
    {"padding": "same", "padding_mode": "circular"},
]


def prepared(convolution: nn.Conv2d, images: torch.Tensor) -> FakeQuantConv2d:
    model = prepare_qat(nn.Sequential(convolution), STATIC)
    calibrate(model, [images], lambda batch: model(batch), Calibration(range="minmax"))
    layer = model[0]  # type: ignore[index]
    assert isinstance(layer, FakeQuantConv2d)
    return layer


@pytest.fixture
def images() -> torch.Tensor:
    return torch.randn(4, 4, 9, 9, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("options", KINDS, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_the_quantized_layer_computes_what_the_fake_one_does(
    images: torch.Tensor, options: dict[str, object], dtype: torch.dtype
) -> None:
    torch.manual_seed(0)
    convolution = nn.Conv2d(4, 6, 3, **options).to(dtype)  # type: ignore[arg-type]
    images = images.to(dtype)
    fake = prepared(convolution, images)
    (grid,) = input_grids(nn.Sequential(fake)).values()
    quantized = fake.quantized(grid)
    outputs = quantized(images)
    assert outputs.dtype == dtype
    assert torch.equal(fake(images), outputs)
    difference = (outputs - convolution(images)).float().norm()
    assert 0 < difference < 0.03 * outputs.float().norm()


def test_the_weight_is_rounded_by_output_channel(images: torch.Tensor) -> None:
    convolution = nn.Conv2d(4, 6, 3)
    fake = prepared(convolution, images)
    assert STATIC.weight.granularity == "per_channel"
    expected = round_to_nearest(convolution.weight.detach().flatten(1), STATIC.weight)
    (codes,) = codes_of(nn.Sequential(fake)).values()
    assert torch.equal(codes.codes_OI, expected.codes_OI)
    assert codes.scale_OG.shape == (6, 1)
    weight = fake.rounding.fake_quantize(fake.weight.flatten(1))
    assert torch.equal(weight, dequantize(expected))


def test_weights_biases_and_inputs_have_gradients(images: torch.Tensor) -> None:
    fake = prepared(nn.Conv2d(4, 6, 3), images)
    images.requires_grad_()
    fake(images).square().sum().backward()
    for tensor in (fake.weight, fake.bias, images):
        assert tensor is not None
        assert tensor.grad is not None
        assert tensor.grad.abs().sum() > 0


def test_the_float_layer_comes_back(images: torch.Tensor) -> None:
    convolution = nn.Conv2d(4, 6, 3, stride=2, padding=1)
    model = prepare_qat(nn.Sequential(convolution), STATIC)
    restored = restore_float(model).get_submodule("0")
    assert type(restored) is nn.Conv2d
    assert restored.weight is convolution.weight
    assert torch.equal(restored(images), convolution(images))


@pytest.mark.parametrize("scheme", SCHEMES.values(), ids=lambda scheme: scheme.name)
def test_convolutions_take_static_eight_bit_schemes_only(scheme: Scheme) -> None:
    reason = unserved(LayerFormat(weight=scheme.weight, activation=scheme.activation))
    assert (reason is None) == (scheme.name == "w8a8-static")
    model = nn.Sequential(nn.Conv2d(4, 6, 3))
    if reason is None:
        assert formats(model, scheme).keys() == {"0"}
    else:
        with pytest.raises(ValueError, match="does not fit convolution '0'"):
            formats(model, scheme)


def test_a_hugging_face_model_s_convolutions_stay_in_float() -> None:
    class Vision(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.patches, self.out = nn.Conv2d(4, 6, 3), nn.Linear(6, 6)

        def get_input_embeddings(self) -> None: ...

        def get_output_embeddings(self) -> None: ...

    assert formats(Vision(), STATIC).keys() == {"out"}


def test_it_is_written_in_full_where_it_is_shown(images: torch.Tensor) -> None:
    fake = prepared(nn.Conv2d(4, 6, 3, stride=2, bias=False), images)
    (grid,) = input_grids(nn.Sequential(fake)).values()
    quantized = fake.quantized(grid)
    assert isinstance(quantized, QuantizedConv2d)
    assert "stride=(2, 2), bias=False" in repr(quantized)
