"""Quantize a trained model without training it further (PTQ)."""

from __future__ import annotations

from quantship.artifact import Facts
from quantship.frozen import Frozen
from quantship.job import Job
from quantship.quant.scheme import Scheme
from quantship.recipe.language import QuantizeStep

REVISION = 2


class Settings(Frozen):
    """What a post-training quantization depends on, beside its inputs."""

    step: QuantizeStep
    scheme: Scheme


def run(job: Job) -> Facts:
    """Write a torchao checkpoint."""
    from quantship.grids import find_grids
    from quantship.models import copy_tokenizer, load_float
    from quantship.quant import handoff
    from quantship.quant.convert import convert
    from quantship.quant.modules import codes_of, prepare_qat

    settings: Settings = job.settings
    step, source = settings.step, job.inputs["model"].path
    data = job.inputs["data"].path if "data" in job.inputs else None
    model = load_float(source).eval()
    prepare_qat(model, settings.scheme)
    calibrated = find_grids(model, step, data, fixes_weights=step.range != "minmax")
    facts: Facts = {
        "scheme": settings.scheme.name,
        "algorithm": step.algorithm,
        "calibration_sequences": calibrated,
        "parity": convert(model, job.out, packed=step.packed),
    }
    handed_over = handoff.compare(codes_of(model), source)
    if handed_over is not None:
        facts["handoff"] = handed_over
    copy_tokenizer(source, job.out)
    return facts
