from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from quantship.algorithms import rtn
from quantship.errors import ParityError
from quantship.quant.checkpoint import load_codes
from quantship.quant.convert import PROBE_SHAPE, convert
from quantship.quant.modules import formats, prepare_qat
from quantship.quant.numerics import Codes
from quantship.quant.scheme import SCHEMES, WeightFormat

pytestmark = pytest.mark.usefixtures("one_thread")

W8A8 = SCHEMES["w8a8"]


def test_facts_say_what_was_compared(tiny_model: Any, tmp_path: Path) -> None:
    expected = len(formats(tiny_model, W8A8))
    assert convert(tiny_model, W8A8, rtn.quantize, tmp_path) == {
        "codes_equal": True,
        "tensors_compared": expected,
        "max_abs_logit_diff": 0.0,
        "num_probe_tokens": PROBE_SHAPE[0] * PROBE_SHAPE[1],
    }


def test_float_and_trained_models_of_the_same_weights_give_the_same_codes(
    tiny_model: Any, tmp_path: Path
) -> None:
    for name in ("float", "trained"):
        (tmp_path / name).mkdir()
        convert(tiny_model, W8A8, rtn.quantize, tmp_path / name)
        prepare_qat(tiny_model, W8A8)
    first, second = load_codes(tmp_path / "float"), load_codes(tmp_path / "trained")
    assert first.keys() == second.keys()
    for name, part in first.items():
        assert torch.equal(part.codes.codes_OI, second[name].codes.codes_OI)
        assert torch.equal(part.codes.scale_OG, second[name].codes.scale_OG)


def test_a_checkpoint_that_computes_something_else_is_refused(
    tiny_model: Any, tmp_path: Path
) -> None:
    def off_by_one(weight_OI: torch.Tensor, fmt: WeightFormat) -> Codes:
        codes = rtn.quantize(weight_OI, fmt)
        codes.codes_OI[0, 0] = -codes.codes_OI[0, 0] + 1
        return codes

    with pytest.raises(ParityError, match=r"codes of no layer, logits by up to"):
        convert(tiny_model, W8A8, off_by_one, tmp_path)


def test_a_model_in_training_mode_with_dropout_is_compared_without_it(
    tiny_model: Any, tmp_path: Path
) -> None:
    tiny_model.config.attention_dropout = 0.5
    for layer in tiny_model.model.layers:
        layer.self_attn.attention_dropout = 0.5
    facts = convert(tiny_model.train(), W8A8, rtn.quantize, tmp_path)
    assert facts["max_abs_logit_diff"] == 0
    AutoModelForCausalLM.from_pretrained(tmp_path)
