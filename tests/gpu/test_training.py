from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from transformers import PreTrainedModel

from quantship.quant import checkpoint, lora
from quantship.quant.convert import convert
from quantship.quant.differences import differing
from quantship.quant.modules import codes_of, fake_quantized, prepare_qat
from quantship.quant.scheme import SCHEMES
from quantship.recipe.language import FinetuneStep, QatStep
from quantship.recipe.rounding_options import Lora
from quantship.training import train

pytestmark = pytest.mark.gpu
STEPS = 8


def dataset() -> Dataset:
    rows = torch.randint(4, 260, (4, 32), generator=torch.Generator().manual_seed(0)).tolist()
    return Dataset.from_dict({"input_ids": rows * STEPS, "labels": rows * STEPS})


def trained(model: Any, step: FinetuneStep | QatStep, resume: Path) -> dict[str, Any]:
    return train(model, dataset(), step, pad_token_id=0, seed=0, resume=resume)


def options(**more: Any) -> dict[str, Any]:
    return {"max_steps": STEPS, "learning_rate": 3e-3, "logging_steps": 1, **more}


@pytest.mark.parametrize("compiled", [False, True])
def test_finetuning_learns_in_bfloat16(
    compiled: bool, tiny_model: PreTrainedModel, tmp_path: Path
) -> None:
    step = FinetuneStep(stage="finetune", **options(compile=compiled))
    facts = trained(tiny_model, step, tmp_path)
    assert tiny_model.device.type == "cuda"
    has_it = torch.cuda.is_bf16_supported(including_emulation=False)
    assert facts["precision"] == ("bfloat16" if has_it else "float32")
    assert facts["peak_gpu_bytes"] > 0
    assert facts["points"][-1]["loss"] < facts["points"][0]["loss"]


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("scheme", ["w8a8", "w8a8-symmetric", "w4a16-g32", "w2a16-g32"])
def test_codes_that_were_trained_are_codes_that_ship(
    scheme: str, compiled: bool, tiny_model: PreTrainedModel, tmp_path: Path
) -> None:
    model: Any = prepare_qat(tiny_model, SCHEMES[scheme])
    step = QatStep(stage="qat", scheme=scheme, **options(compile=compiled))
    facts = trained(model, step, tmp_path / "resume")
    assert facts["points"][-1]["loss"] < facts["points"][0]["loss"]
    there = {name: _on_cpu(codes) for name, codes in codes_of(model).items()}
    out = tmp_path / "out"
    out.mkdir()
    assert convert(model.cpu(), out)["codes_equal"]
    shipped = {name: part.codes for name, part in checkpoint.load_codes(out).items()}
    assert not differing(there, shipped)  # what the GPU rounded to is what the CPU has written


def test_adapters_merge_on_the_gpu_to_the_codes_that_were_trained(
    tiny_model: PreTrainedModel, tmp_path: Path
) -> None:
    model: Any = prepare_qat(tiny_model, SCHEMES["w4a16-g32"])
    adapted = lora.add_adapters(model, Lora(rank=4))
    step = QatStep(stage="qat", scheme="w4a16-g32", lora=True, **options())
    trained(adapted, step, tmp_path)
    merged = lora.merge(adapted)  # compares codes before and after
    assert {codes.codes_OI.device.type for codes in codes_of(merged).values()} == {"cuda"}


def test_neither_autocast_nor_tf32_has_a_say_in_rounding(tiny_model: PreTrainedModel) -> None:
    model: Any = prepare_qat(tiny_model, SCHEMES["w4a16-g32"]).cuda()
    plain = codes_of(model)
    torch.set_float32_matmul_precision("high")
    try:
        with torch.autocast("cuda", torch.bfloat16):
            assert not differing(plain, codes_of(model))
    finally:
        torch.set_float32_matmul_precision("highest")


def test_training_leaves_products_of_float32_exact(
    tiny_model: PreTrainedModel, tmp_path: Path
) -> None:
    """Adapters are merged by such products."""
    trained(tiny_model, FinetuneStep(stage="finetune", **options(compile=True)), tmp_path)
    assert torch.get_float32_matmul_precision() == "highest"
    assert not torch.backends.cuda.matmul.allow_tf32


def test_fake_quantized_layers_round_alike_on_both_devices(tiny_model: PreTrainedModel) -> None:
    for scheme in SCHEMES.values():
        if scheme.is_static:
            continue
        model: Any = prepare_qat(copy.deepcopy(tiny_model), scheme)
        here = codes_of(model)
        there = {name: _on_cpu(codes) for name, codes in codes_of(model.cuda()).items()}
        assert not differing(here, there), scheme.name
        assert len(list(fake_quantized(model))) == len(here)


def _on_cpu(codes: Any) -> Any:
    return type(codes)(*(None if part is None else part.cpu() for part in codes))
