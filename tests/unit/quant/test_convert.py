from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM

from quantship.errors import ParityError
from quantship.quant import checkpoint
from quantship.quant.checkpoint import WEIGHTS, load_codes
from quantship.quant.convert import PROBE_SHAPE, convert
from quantship.quant.differences import differing
from quantship.quant.layers import formats
from quantship.quant.modules import codes_of, prepare_qat
from quantship.quant.scheme import SCHEMES

pytestmark = pytest.mark.usefixtures("one_thread")

W8A8 = SCHEMES["w8a8"]
UP = "model.layers.1.mlp.up_proj"


def test_facts_say_what_was_compared(tied: Any, tmp_path: Path) -> None:
    facts = convert(prepare_qat(tied, W8A8), tmp_path)  # type: ignore[arg-type]
    assert facts.pop("kl_nats") == pytest.approx(0, abs=1e-6)
    assert facts == {
        "codes_equal": True,
        "tensors_compared": len(formats(tied, W8A8)),
        "max_abs_logit_diff": 0.0,
        "top1_agreement": 1.0,
        "num_probe_tokens": PROBE_SHAPE[0] * PROBE_SHAPE[1],
    }


def test_the_file_holds_the_models_codes(tied: Any, tmp_path: Path) -> None:
    model: Any = prepare_qat(tied, SCHEMES["w4a16-g32"])
    convert(model, tmp_path)
    stored = {name: part.codes for name, part in load_codes(tmp_path).items()}
    assert differing(stored, codes_of(model)) == []


def edit_file(
    monkeypatch: pytest.MonkeyPatch, change: Callable[[dict[str, torch.Tensor]], None]
) -> None:
    """Let something happen to the file between its writing and its check."""
    ours = checkpoint.save

    def save(*given: Any, **options: Any) -> None:
        ours(*given, **options)
        path = given[4] / WEIGHTS
        with safe_open(path, "pt") as file:
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
            metadata = file.metadata()
        change(tensors)
        save_file(tensors, path, metadata=metadata)

    monkeypatch.setattr(checkpoint, "save", save)


def test_one_changed_code_is_found_and_named(
    tied: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def change(tensors: dict[str, torch.Tensor]) -> None:
        codes = tensors[f"{UP}._weight_qdata"]
        codes[3, 5] += 1 if codes[3, 5] < 0 else -1

    edit_file(monkeypatch, change)
    with pytest.raises(ParityError, match=rf"codes of {UP}, logits by up to [^n]"):
        convert(prepare_qat(tied, W8A8), tmp_path)  # type: ignore[arg-type]


@pytest.mark.parametrize("part", ["scale", "zero_point"])
def test_a_changed_grid_is_found_and_named(
    tied: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    def change(tensors: dict[str, torch.Tensor]) -> None:
        grid = tensors[f"{UP}._weight_{part}"]
        grid[0, 0] = grid[0, 0].nextafter(torch.tensor(1.0)) if part == "scale" else grid[0, 0] - 1

    edit_file(monkeypatch, change)
    with pytest.raises(ParityError, match=f"codes of {UP}, "):
        convert(prepare_qat(tied, SCHEMES["w4a16-g32-asymmetric"]), tmp_path)  # type: ignore[arg-type]


def test_a_model_that_computes_something_else_is_found_by_its_logits(
    tied: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def change(tensors: dict[str, torch.Tensor]) -> None:
        tensors["model.norm.weight"][0] += 0.1

    edit_file(monkeypatch, change)
    with pytest.raises(ParityError, match="codes of no layer, logits by up to 0"):
        convert(prepare_qat(tied, W8A8), tmp_path)  # type: ignore[arg-type]


def test_integer_sums_are_given_no_more_than_their_rounding(
    tied: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model: Any = prepare_qat(tied, SCHEMES["w8a8-symmetric"])
    facts = convert(model, tmp_path)
    assert facts["max_abs_logit_diff"] < 1e-3

    def change(tensors: dict[str, torch.Tensor]) -> None:
        tensors["model.norm.weight"] *= 1.1

    edit_file(monkeypatch, change)
    with pytest.raises(ParityError, match="codes of no layer"):
        convert(model, tmp_path)


@pytest.mark.parametrize("name", ["model.norm.weight", f"{UP}.weight"])
def test_numbers_that_are_none_are_refused(tied: Any, tmp_path: Path, name: str) -> None:
    with torch.no_grad():
        tied.get_parameter(name).flatten()[7] = float("nan")
    with pytest.raises(ParityError, match="nan"):
        convert(prepare_qat(tied, W8A8), tmp_path)  # type: ignore[arg-type]


def test_a_model_whose_logits_are_all_zero_is_no_less_equal(tied: Any, tmp_path: Path) -> None:
    with torch.no_grad():
        tied.get_input_embeddings().weight.zero_()
    facts = convert(prepare_qat(tied, W8A8), tmp_path)  # type: ignore[arg-type]
    assert facts["max_abs_logit_diff"] == 0


def test_a_model_in_training_mode_with_dropout_is_compared_without_it(
    tied: Any, tmp_path: Path
) -> None:
    tied.config.attention_dropout = 0.5
    for layer in tied.model.layers:
        layer.self_attn.attention_dropout = 0.5
    facts = convert(prepare_qat(tied.train(), W8A8), tmp_path)  # type: ignore[arg-type]
    assert facts["max_abs_logit_diff"] == 0
    AutoModelForCausalLM.from_pretrained(tmp_path)


def test_converting_does_not_change_the_model(tied: Any, tmp_path: Path) -> None:
    model: Any = prepare_qat(tied, SCHEMES["w4a8"])
    before = copy.deepcopy(model.state_dict())
    convert(model, tmp_path)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
