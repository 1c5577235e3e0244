from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn
from transformers import PreTrainedModel

from quantship.quant import checkpoint, gpu_kernels, serving
from quantship.quant.convert import convert
from quantship.quant.layers import is_tied
from quantship.quant.loading import load, mapped
from quantship.quant.modules import prepare_qat
from quantship.quant.numerics import Codes, dequantize
from quantship.quant.scheme import SCHEMES
from quantship.quant.tensors import codes_in, pack_int4

pytestmark = pytest.mark.usefixtures("one_thread")
IDS = torch.arange(4, 36).reshape(2, 16)
DYNAMIC = ["w8a8", "w8a8-symmetric", "w8a8-per-tensor", "w8a16", "w4a8", "w4a16-g32", "w2a16-g32"]


def relative_error(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    return float((ours.float() - theirs.float()).norm() / theirs.float().norm())


@pytest.mark.parametrize("name", DYNAMIC)
def test_in_bfloat16_the_codes_stay_and_logits_are_near(
    name: str, tiny_model: PreTrainedModel, tmp_path: Path
) -> None:
    convert(prepare_qat(tiny_model, SCHEMES[name]), tmp_path)
    exact, halved = load(tmp_path), load(tmp_path, bfloat16=True)
    stored = {part: one.codes for part, one in checkpoint.load_codes(tmp_path).items()}
    ours = codes_in(halved)
    assert ours.keys() == stored.keys()
    for layer, codes in stored.items():
        assert torch.equal(ours[layer].codes_OI, codes.codes_OI)
        assert torch.equal(ours[layer].scale_OG, codes.scale_OG.to(ours[layer].scale_OG.dtype))
    assert is_tied(halved) == is_tied(exact)
    with torch.inference_mode():
        logits, reference = halved(input_ids=IDS).logits, exact(input_ids=IDS).logits
    assert logits.dtype == torch.bfloat16
    assert 0 < relative_error(logits, reference) < 0.05


def test_a_float_model_in_bfloat16_is_as_transformers_loads_it(tiny_model_dir: Path) -> None:
    ours, theirs = load(tiny_model_dir, bfloat16=True), load(tiny_model_dir, dtype=torch.bfloat16)
    with torch.inference_mode():
        assert torch.equal(ours(input_ids=IDS).logits, theirs(input_ids=IDS).logits)
    assert {name: one.dtype for name, one in ours.named_buffers()} == {
        name: one.dtype for name, one in theirs.named_buffers()
    }


@pytest.mark.parametrize(("num_out", "num_in", "group"), [(32, 1024, 32), (16, 2048, 128)])
def test_tiles_stand_for_the_same_numbers(num_out: int, num_in: int, group: int) -> None:
    """PyTorch's kernel for CPUs takes scales and zeros as the one for GPUs does."""
    generator = torch.Generator().manual_seed(0)
    codes_OI = torch.randint(-8, 8, (num_out, num_in), generator=generator).to(torch.int8)
    scale_OG = torch.rand(num_out, num_in // group, generator=generator).bfloat16()
    input_TI = torch.randn(5, num_in, generator=generator).bfloat16()
    found_OI, scale_and_zero_GO2 = serving.tiles(codes_OI, scale_OG)
    packed = torch.ops.aten._convert_weight_to_int4pack_for_cpu(found_OI.int(), 8)
    ours = torch.ops.aten._weight_int4pack_mm_for_cpu(input_TI, packed, group, scale_and_zero_GO2)
    numbers_OI = dequantize(Codes(codes_OI, scale_OG.float()))
    assert relative_error(ours, input_TI.float() @ numbers_OI.t()) < 0.01


def test_tiles_are_whole_and_what_is_added_counts_nothing() -> None:
    codes_OI, scale_OG = torch.ones(12, 64, dtype=torch.int8), torch.ones(12, 2).bfloat16()
    found_OI, pairs_GO2 = serving.tiles(codes_OI, scale_OG)
    assert found_OI.shape == (16, serving.TILE_IN)
    assert pairs_GO2.shape == (serving.TILE_IN // 32, 16, 2)
    assert int((found_OI != 8).sum()) == codes_OI.numel()
    assert float(pairs_GO2.sum()) == float(scale_OG.sum())
    assert pairs_GO2.is_contiguous()


def test_packed_layers_get_the_tensor_of_the_gpus_kernel(
    monkeypatch: pytest.MonkeyPatch, tiny_model: PreTrainedModel, tmp_path: Path
) -> None:
    """What packs tiles runs on a GPU only, so that here it is replaced and the choice is tested."""
    seen: list[torch.Size] = []

    def note(weight: torch.Tensor) -> torch.Tensor:
        seen.append(weight.shape)
        return torch.zeros(weight.shape, dtype=torch.bfloat16)

    convert(prepare_qat(tiny_model, SCHEMES["w4a16-g32"]), tmp_path)
    monkeypatch.setattr(serving, "tile_packed", note)
    for mslk, capability, tiled in (
        (False, (8, 6), True),
        (False, (7, 5), False),
        (True, (9, 0), False),
        (True, (12, 0), True),
    ):
        monkeypatch.setattr(gpu_kernels, "has_mslk", lambda here=mslk: here)
        seen.clear()
        model = mapped(tmp_path)
        serving.in_bfloat16(model, capability)
        linear = [one for one in model.modules() if isinstance(one, nn.Linear)]
        inner = len(linear) - 1  # the head is tied to an 8-bit embedding
        assert len(seen) == (inner if tiled else 0)
        kinds = {type(one.weight.data).__name__ for one in linear[:inner]}
        if not tiled:
            assert kinds == {"Int4Tensor" if mslk else "IntxUnpackedToInt8Tensor"}


def test_packing_by_tiles_keeps_the_order_of_codes() -> None:
    codes_OI = torch.randint(-8, 8, (8, 1024), dtype=torch.int8)
    from quantship.quant.tensors import unpack_int4

    assert torch.equal(unpack_int4(pack_int4(codes_OI)), codes_OI)
    found_OI, _ = serving.tiles(codes_OI, torch.ones(8, 32).bfloat16())
    assert torch.equal(found_OI.to(torch.int8) - 8, codes_OI)
