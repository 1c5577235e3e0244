from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from quantship.errors import QuantshipError
from quantship.job import Job
from quantship.models import load_float
from quantship.quant import checkpoint
from quantship.quant.numerics import dequantize
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
    assert not (done.resume).exists()


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
