"""Fine-tuning and quantization-aware training: the same training, different models left."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer

from quantship.errors import QuantshipError
from quantship.job import Job
from quantship.models import load_float
from quantship.quant import checkpoint
from quantship.quant.differences import differing
from quantship.quant.loading import load
from quantship.quant.scheme import SCHEMES
from quantship.recipe.language import FinetuneStep, QatStep
from quantship.stages import finetune, qat

pytestmark = pytest.mark.usefixtures("one_thread")
OPTIONS: dict[str, Any] = {"max_steps": 3, "learning_rate": 1e-3}
FINETUNE = finetune.Settings(step=FinetuneStep(stage="finetune", **OPTIONS), seed=0)


def qat_settings(scheme: str, **more: Any) -> qat.Settings:
    step = QatStep(stage="qat", scheme=scheme, **OPTIONS, **more)
    return qat.Settings(step=step, scheme=SCHEMES[scheme], seed=0)


def test_finetuning_leaves_a_float_model(
    job: Callable[..., Job], tiny_model_dir: Path, data_dir: Path
) -> None:
    done = job(FINETUNE, model=tiny_model_dir, data=data_dir)
    facts = finetune.run(done)
    assert facts["training"]["num_steps"] == 3
    before, after = load_float(tiny_model_dir), load_float(done.out)
    changed = [
        name
        for name, tensor in after.state_dict().items()
        if not torch.equal(tensor, before.get_parameter(name))
    ]
    assert len(changed) == len(after.state_dict())
    text = "Grüße"
    tokenizers = [AutoTokenizer.from_pretrained(path) for path in (tiny_model_dir, done.out)]
    assert tokenizers[0](text)["input_ids"] == tokenizers[1](text)["input_ids"]
    assert tokenizers[0].chat_template == tokenizers[1].chat_template


@pytest.mark.parametrize("scheme", ["w8a8", "w4a16-g32"])
def test_qat_leaves_the_integers_that_were_trained(
    scheme: str, job: Callable[..., Job], tiny_model_dir: Path, data_dir: Path
) -> None:
    done = job(qat_settings(scheme), model=tiny_model_dir, data=data_dir)
    facts = qat.run(done)
    assert facts["scheme"] == scheme
    assert facts["parity"]["codes_equal"] is True
    assert facts["parity"]["max_abs_logit_diff"] == 0
    stored = checkpoint.load_codes(done.out)
    assert facts["parity"]["tensors_compared"] == len(stored) == 2 * 7 + 1
    bits = {part.bits for name, part in stored.items() if name != "model.embed_tokens"}
    assert bits == {SCHEMES[scheme].weight.bits}
    model: Any = load(done.out)
    tokenizer = AutoTokenizer.from_pretrained(done.out)
    tokens = tokenizer("Please spell the word goat.", return_tensors="pt")
    assert torch.isfinite(model(tokens["input_ids"]).logits).all()


WAYS: dict[str, dict[str, Any]] = {
    "fixed scales": {"scheme": "w4a16-g32", "scales": "fixed", "range": "mse"},
    "learned scales": {"scheme": "w2a16-g32", "scales": "learned", "range": "percentile"},
    "learned zero points": {"scheme": "w4a16-g32-asymmetric", "scales": "learned"},
    "static inputs": {"scheme": "w8a8-static", "calibration": {"range": "mse", "sequences": 4}},
    "learned static inputs": {"scheme": "w8a8-static", "scales": "learned"},
    "LoRA": {"scheme": "w4a8", "lora": True},
    "QLoRA": {"scheme": "w4a16-g32", "lora": {"base": "nf4", "rank": 4}},
    "LoRA with learned scales": {"scheme": "w8a8", "lora": True, "scales": "learned"},
}


@pytest.mark.parametrize("way", WAYS)
def test_every_way_to_train_leaves_what_it_trained(
    way: str, job: Callable[..., Job], tiny_model_dir: Path, data_dir: Path
) -> None:
    done = job(qat_settings(**WAYS[way]), model=tiny_model_dir, data=data_dir)
    facts = qat.run(done)
    assert facts["parity"]["codes_equal"] is True
    assert facts["parity"]["max_abs_logit_diff"] == 0
    static = WAYS[way]["scheme"] == "w8a8-static"
    assert (facts["calibration_sequences"] > 0) == static
    assert (done.out / "adapter" / "adapter_model.safetensors").exists() == ("lora" in WAYS[way])


@pytest.mark.parametrize("way", ["learned scales", "LoRA with learned scales"])
def test_an_unfinished_training_goes_on_to_the_same_integers(
    way: str, job: Callable[..., Job], tiny_model_dir: Path, data_dir: Path
) -> None:
    """Also from a checkpoint of the very last step, which Trainer itself does not load."""
    given = {**WAYS[way], "save_steps": 1}
    inputs = {"model": tiny_model_dir, "data": data_dir}
    first = job(qat_settings(**given), "first", **inputs)
    qat.run(first)
    again = job(qat_settings(**given), "again", **inputs)
    first.resume.rename(again.resume)
    assert qat.run(again)["training"]["resumed_from"] == 3
    one, other = checkpoint.load_codes(first.out), checkpoint.load_codes(again.out)
    assert (
        differing(
            {name: part.codes for name, part in one.items()},
            {name: part.codes for name, part in other.items()},
        )
        == []
    )


def test_a_training_that_had_ended_leaves_the_very_same_files(
    job: Callable[..., Job], tiny_model_dir: Path, data_dir: Path
) -> None:
    """Trainer changes a model's configuration when it is made, and none is made the second time."""
    inputs = {"model": tiny_model_dir, "data": data_dir}
    first = job(FINETUNE, "first", **inputs)
    finetune.run(first)
    again = job(FINETUNE, "again", **inputs)
    first.resume.rename(again.resume)
    assert finetune.run(again)["training"]["resumed_from"] is not None
    for file in first.out.iterdir():
        assert (again.out / file.name).read_bytes() == file.read_bytes(), file.name


@pytest.mark.parametrize("stage", [finetune, qat])
def test_a_quantized_model_is_not_trained(
    stage: Any, job: Callable[..., Job], quantized_dir: Path, data_dir: Path
) -> None:
    settings = FINETUNE if stage is finetune else qat_settings("w8a8")
    with pytest.raises(QuantshipError, match="quantized model; this step needs a float one"):
        stage.run(job(settings, model=quantized_dir, data=data_dir))


@pytest.mark.parametrize("stage", [finetune, qat])
def test_checkpoints_stay_until_the_artifact_is_in_its_place(
    stage: Any, job: Callable[..., Job], tiny_model_dir: Path, data_dir: Path
) -> None:
    """A run killed while the model is verified or hashed must not train again."""
    settings = FINETUNE if stage is finetune else qat_settings("w8a8")
    done = job(settings, model=tiny_model_dir, data=data_dir)
    stage.run(done)
    assert [path.name for path in done.resume.glob("checkpoint-*")] == ["checkpoint-3"]
