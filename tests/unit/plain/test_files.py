from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from quantship import convert, load_into, prepare_qat, quantize, save
from quantship.quant.differences import differing
from quantship.quant.scheme import SCHEMES, Scheme
from quantship.quant.tensors import codes_in

SHAPED = [scheme for scheme in SCHEMES.values() if scheme.weight.group_size != 128]


def blank(module: nn.Module) -> nn.Module:
    """The same architecture with other numbers."""
    other = copy.deepcopy(module)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.fill_(7)
    return other


@pytest.mark.parametrize("scheme", SHAPED, ids=lambda scheme: scheme.name)
def test_what_is_saved_is_what_is_loaded(
    reader: nn.Module, ids: Tensor, scheme: Scheme, tmp_path: Path
) -> None:
    quantized = quantize(reader, scheme, [ids])
    save(quantized, tmp_path / "model.safetensors")
    loaded = load_into(blank(reader), tmp_path / "model.safetensors")
    assert differing(codes_in(quantized), codes_in(loaded)) == []
    assert torch.equal(quantized(ids), loaded(ids))
    assert not loaded.training
    assert loaded.again is loaded.inner


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("name", ["w8a8", "w4a16-g32", "w4a8"])
def test_half_precision_is_kept(
    reader: nn.Module, ids: Tensor, name: str, dtype: torch.dtype, tmp_path: Path
) -> None:
    quantized = quantize(reader.to(dtype), name)
    save(quantized, tmp_path / "model.safetensors")
    loaded = load_into(blank(reader), tmp_path / "model.safetensors")
    assert torch.equal(quantized(ids), loaded(ids))
    assert loaded(ids).dtype == dtype


def test_convolutions_are_saved_and_loaded(
    convolutions: nn.Module, images: Tensor, tmp_path: Path
) -> None:
    quantized = quantize(convolutions, "w8a8-static", [images])
    save(quantized, tmp_path / "model.safetensors")
    loaded = load_into(blank(convolutions), tmp_path / "model.safetensors")
    assert torch.equal(quantized(images), loaded(images))


def test_a_float_module_is_saved_and_loaded_as_it_is(
    convolutions: nn.Module, images: Tensor, tmp_path: Path
) -> None:
    save(convolutions, tmp_path / "model.safetensors")
    loaded = load_into(blank(convolutions), tmp_path / "model.safetensors")
    assert torch.equal(convolutions(images), loaded(images))


def test_trained_modules_are_saved_and_loaded(
    reader: nn.Module, ids: Tensor, tmp_path: Path
) -> None:
    fake = prepare_qat(reader, "w4a8")
    with torch.no_grad():
        for parameter in fake.parameters():
            parameter.mul_(1.5)
    save(convert(fake), tmp_path / "model.safetensors")
    loaded = load_into(reader, tmp_path / "model.safetensors")
    assert torch.equal(fake.eval()(ids), loaded(ids))


@pytest.mark.parametrize("name", ["w8a16", "w4a16-g32"])
def test_tied_matrices_are_written_once_and_loaded_tied(
    reader: nn.Module, ids: Tensor, name: str, tmp_path: Path
) -> None:
    scheme = SCHEMES[name].model_copy(update={"embedding": SCHEMES[name].weight})
    apart = quantize(reader, scheme)
    reader.out.weight = reader.words.weight  # type: ignore[union-attr]
    tied = quantize(reader, scheme)
    save(apart, tmp_path / "apart.safetensors")
    save(tied, tmp_path / "tied.safetensors")
    sizes = [(tmp_path / f"{one}.safetensors").stat().st_size for one in ("apart", "tied")]
    assert sizes[0] - sizes[1] > 40 * 64 * scheme.weight.bits / 8
    loaded = load_into(blank(reader), tmp_path / "tied.safetensors")
    assert loaded.out.weight is loaded.words.weight  # type: ignore[union-attr]
    assert torch.equal(tied(ids), loaded(ids))


def test_four_bit_codes_take_half_a_byte(tmp_path: Path) -> None:
    module = nn.Sequential(nn.Linear(1024, 1024, bias=False))
    save(quantize(module, "w4a16-g128"), tmp_path / "model.safetensors")
    assert (tmp_path / "model.safetensors").stat().st_size < 0.30 * 2 * 1024 * 1024


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (lambda: nn.Sequential(nn.Linear(32, 16)), "lacks nothing, and the module lacks 1.bias"),
        (lambda: nn.Sequential(nn.Linear(32, 32), nn.Linear(32, 64)), r"'1.weight' is \(16, 32\)"),
        (
            lambda: nn.Sequential(nn.Linear(32, 32), nn.Linear(32, 16), nn.LayerNorm(16)),
            "lacks 2.bias, 2.weight",
        ),
        (
            lambda: nn.Sequential(nn.Linear(32, 32), nn.Linear(32, 16, bias=False)),
            "module lacks 1.bias",
        ),
    ],
)
def test_a_file_of_another_architecture_is_refused(
    other: object, message: str, tmp_path: Path
) -> None:
    module = nn.Sequential(nn.Linear(32, 32), nn.Linear(32, 16))
    save(quantize(module, "w8a8"), tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match=message):
        load_into(other(), tmp_path / "model.safetensors")  # type: ignore[operator]


def test_a_convolution_that_is_not_there_is_refused(
    convolutions: nn.Module, images: Tensor, tmp_path: Path
) -> None:
    save(quantize(convolutions, "w8a8-static", [images]), tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match="has a convolution '0', and the module has none"):
        load_into(nn.Sequential(nn.Linear(8, 8)), tmp_path / "model.safetensors")


def test_a_module_in_training_is_converted_before_it_is_saved(
    reader: nn.Module, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match="save what convert makes of it"):
        save(prepare_qat(reader, "w8a8"), tmp_path / "model.safetensors")
    assert list(tmp_path.iterdir()) == []


def test_a_file_from_elsewhere_is_refused(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    save_file({"0.weight": torch.zeros(2, 2)}, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match="was not written by quantship"):
        load_into(nn.Sequential(nn.Linear(2, 2)), tmp_path / "other.safetensors")
