"""Quantize a trained model without training it further (PTQ)."""

from __future__ import annotations

from quantship.artifact import Facts
from quantship.frozen import Frozen
from quantship.job import Job
from quantship.quant.scheme import Scheme
from quantship.recipe.language import QuantizeStep

REVISION = 1


class Settings(Frozen):
    """What a post-training quantization depends on, beside its input."""

    step: QuantizeStep
    scheme: Scheme


def run(job: Job) -> Facts:
    """Write a torchao checkpoint."""
    from quantship.algorithms import rtn
    from quantship.models import load_float, load_tokenizer
    from quantship.quant.convert import convert

    settings: Settings = job.settings
    source = job.inputs["model"].path
    model = load_float(source).eval()
    parity = convert(model, settings.scheme, rtn.quantize, job.out)
    load_tokenizer(source).save_pretrained(job.out)
    return {"scheme": settings.scheme.name, "algorithm": settings.step.algorithm, "parity": parity}
