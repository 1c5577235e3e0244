from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from datasets import Dataset

from quantship.algorithms.table import ALGORITHMS
from quantship.errors import QuantshipError
from quantship.job import Job
from quantship.models import load_float
from quantship.quant import checkpoint, handoff
from quantship.quant.differences import differing
from quantship.quant.modules import codes_of, prepare_qat
from quantship.quant.numerics import Codes, dequantize
from quantship.quant.scheme import SCHEMES
from quantship.recipe.language import QuantizeStep
from quantship.stages import quantize


@pytest.mark.parametrize("name", SCHEMES)
def test_every_scheme_leaves_a_checkpoint_near_its_model(
    name: str, job: Callable[..., Job], tiny_model_dir: Path, data_dir: Path
) -> None:
    scheme = SCHEMES[name]
    settings = quantize.Settings(step=QuantizeStep(stage="quantize", scheme=name), scheme=scheme)
    done = job(settings, model=tiny_model_dir, data=data_dir)
    facts = quantize.run(done)
    assert (facts["scheme"], facts["algorithm"]) == (name, "rtn")
    assert facts["parity"]["codes_equal"] is True
    model = load_float(tiny_model_dir)
    for module, part in checkpoint.load_codes(done.out).items():
        weight_OI = model.get_parameter(f"{module}.weight")
        scale_OI = part.codes.scale_OG.repeat_interleave(
            weight_OI.shape[1] // part.codes.scale_OG.shape[1], dim=1
        )
        error_OI = (dequantize(part.codes) - weight_OI).abs()
        assert (error_OI <= scale_OI * 1.01).all(), "no weight moves by more than a step"
    assert facts["blocks_resumed"] == facts["bias_corrected"] == 0
    assert facts["peak_rss_bytes"] > 50_000_000
    assert facts["seconds"] > 0
    assert facts["calibration_sequences"] == (24 if scheme.is_static else 0)
    assert (facts["calibration_tokens"] > 24) == scheme.is_static


def test_a_quantized_model_is_not_quantized_again(
    job: Callable[..., Job], quantized_dir: Path
) -> None:
    settings = quantize.Settings(
        step=QuantizeStep(stage="quantize", scheme="w8a16"), scheme=SCHEMES["w8a16"]
    )
    with pytest.raises(QuantshipError, match="this step needs a float one"):
        quantize.run(job(settings, model=quantized_dir))


def test_the_float_model_is_left_as_it_was(job: Callable[..., Job], tiny_model_dir: Path) -> None:
    before = {path.name: path.read_bytes() for path in tiny_model_dir.iterdir()}
    settings = quantize.Settings(
        step=QuantizeStep(stage="quantize", scheme="w8a8"), scheme=SCHEMES["w8a8"]
    )
    with torch.random.fork_rng():
        quantize.run(job(settings, model=tiny_model_dir))
    assert {path.name: path.read_bytes() for path in tiny_model_dir.iterdir()} == before


@pytest.mark.parametrize("kind", ALGORITHMS)
def test_every_algorithm_leaves_a_checkpoint_that_computes_what_was_made(
    kind: str, job: Callable[..., Job], tiny_model_dir: Path, data_dir: Path
) -> None:
    scheme = SCHEMES["w4a8"]
    step = QuantizeStep.model_validate(
        {
            "stage": "quantize",
            "algorithm": kind,
            "bias_correction": True,
            "calibration": {"sequences": 3},
        }
    )
    settings = quantize.Settings(step=step, scheme=scheme)
    facts = quantize.run(job(settings, model=tiny_model_dir, data=data_dir))
    assert facts["algorithm"] == kind
    assert facts["parity"]["codes_equal"] is True
    assert facts["calibration_sequences"] == 3
    assert facts["bias_corrected"] == 0, "a Llama has no biases"
    assert all(isinstance(note, str) for note in facts["notes"])


def codes_of_seed(
    seed: int | None, job: Callable[..., Job], model: Path, data: Path, name: str
) -> dict[str, Codes]:
    step = QuantizeStep.model_validate(
        {
            "stage": "quantize",
            "algorithm": "gptq",
            "calibration": {"sequences": 2, "seed": seed},
        }
    )
    settings = quantize.Settings(step=step, scheme=SCHEMES["w4a16-g32"])
    done = job(settings, name, model=model, data=data)
    quantize.run(done)
    return {name: stored.codes for name, stored in checkpoint.load_codes(done.out).items()}


def test_a_seed_chooses_what_is_looked_at(
    job: Callable[..., Job], tiny_model_dir: Path, data_dir: Path
) -> None:
    given = (job, tiny_model_dir, data_dir)
    first, other, again = (codes_of_seed(seed, *given, f"{n}") for n, seed in enumerate((1, 2, 1)))
    assert differing(first, again) == []
    assert differing(first, other) != []


def test_no_data_to_calibrate_on_is_said(
    job: Callable[..., Job], tiny_model_dir: Path, tmp_path: Path
) -> None:
    settings = quantize.Settings(
        step=QuantizeStep(stage="quantize", scheme="w8a8-static"), scheme=SCHEMES["w8a8-static"]
    )
    (tmp_path / "data").mkdir()
    with pytest.raises(QuantshipError, match=r"training data, and data\.train names none"):
        quantize.run(job(settings, "a", model=tiny_model_dir, data=tmp_path / "data"))
    one = Dataset.from_dict({"input_ids": [[1]], "labels": [[1]]})
    one.select([]).save_to_disk(tmp_path / "data" / "train", num_shards=1)
    with pytest.raises(QuantshipError, match=r"training data, and data\.train holds no sequence"):
        quantize.run(job(settings, "b", model=tiny_model_dir, data=tmp_path / "data"))


def test_codes_that_were_trained_are_compared_with(
    job: Callable[..., Job], tiny_model_dir: Path, tmp_path: Path
) -> None:
    source = tmp_path / "trained"
    shutil.copytree(tiny_model_dir, source)
    model = prepare_qat(load_float(source), SCHEMES["w8a16"])
    trained = codes_of(model)
    name = "model.layers.0.mlp.up_proj"
    trained[name].codes_OI[0, 0] += 1 if trained[name].codes_OI[0, 0] < 0 else -1
    handoff.save(trained, source)
    settings = quantize.Settings(
        step=QuantizeStep(stage="quantize", scheme="w8a16"), scheme=SCHEMES["w8a16"]
    )
    found = quantize.run(job(settings, model=source))["handoff"]
    assert (found["tensors_different"], found["codes_equal"]) == (1, False)
    assert 0.99 < found["share_of_codes_equal"] < 1
