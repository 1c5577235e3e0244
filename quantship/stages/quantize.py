"""Quantize a trained model without training it further (PTQ)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from quantship import hardware
from quantship.algorithms.table import ALGORITHMS
from quantship.artifact import Facts
from quantship.errors import QuantshipError
from quantship.frozen import Frozen
from quantship.job import Job
from quantship.quant.scheme import Scheme
from quantship.recipe.language import QuantizeStep
from quantship.recipe.options import needs_data

if TYPE_CHECKING:
    from quantship.blocks.walk import Batch
    from quantship.quant.statistics import InputStatistics

REVISION = 3


STATISTICS = "statistics"
"""Role of the float model's statistics, where they stand for calibration data."""


class Settings(Frozen):
    """What a post-training quantization depends on, beside its inputs."""

    step: QuantizeStep
    scheme: Scheme


def reads_statistics(step: QuantizeStep, scheme: Scheme) -> bool:
    """Whether all that calibration data is for is known from the statistics of the float model.

    That is so for static input ranges under an algorithm that leaves inputs as they are.
    """
    needs: bool = ALGORITHMS[step.algorithm.kind].NEEDS_DATA
    return scheme.is_static and not needs and not step.bias_correction


def run(job: Job) -> Facts:
    """Write a torchao checkpoint."""
    import time

    import torch

    from quantship.artifact import fingerprint
    from quantship.blocks.engine import Task, quantize
    from quantship.blocks.parts import Parts
    from quantship.models import copy_tokenizer
    from quantship.quant import checkpoint, gpu_kernels, handoff

    began = time.monotonic()
    hardware.forget_peak_rss()
    settings: Settings = job.settings
    step, source = settings.step, job.inputs["model"].path
    batches = _batches(job, settings)
    inputs = {role: given.fingerprint for role, given in job.inputs.items()}
    made_for = fingerprint("quantize", REVISION, settings.model_dump(mode="json"), inputs)
    task = Task(
        step,
        settings.scheme,
        batches,
        Parts(job.resume, made_for),
        "cuda" if torch.cuda.is_available() else "cpu",
        _statistics(job),
    )
    facts: Facts = {
        "scheme": settings.scheme.name,
        "algorithm": step.algorithm.kind,
        "calibration_sequences": len(batches),
        "calibration_tokens": sum(batch["attention_mask"].numel() for batch in batches),
        "hardware_needs": gpu_kernels.needs(settings.scheme, packed=step.packed),
        **_known(job),
        **quantize(source, task, job.out),
    }
    handed_over = handoff.compare(checkpoint.codes_on_demand(job.out), source)
    if handed_over is not None:
        facts["handoff"] = handed_over
    copy_tokenizer(source, job.out)
    facts["peak_rss_bytes"] = hardware.peak_rss_bytes()
    facts["peak_gpu_bytes"] = hardware.peak_gpu_bytes()
    facts["seconds"] = round(time.monotonic() - began, 3)
    return facts


def _batches(job: Job, settings: Settings) -> list[Batch]:
    from quantship.data.calibration import sequences

    if not needs_data(settings.step, settings.scheme) or STATISTICS in job.inputs:
        return []
    calibration = settings.step.calibration
    found = sequences(job.inputs["data"].path, calibration.sequences, calibration.seed)
    if not found:
        raise QuantshipError("calibration needs training data, and data.train holds no sequence")
    return [*found]


def _statistics(job: Job) -> dict[str, InputStatistics] | None:
    from quantship.quant import statistics_file

    if STATISTICS not in job.inputs:
        return None
    return statistics_file.load(job.inputs[STATISTICS].path / statistics_file.FILE)


def _known(job: Job) -> Facts:
    """What calibration looked at, where another job has done that."""
    if STATISTICS not in job.inputs:
        return {}
    facts = job.inputs[STATISTICS].facts
    return {"calibration_sequences": facts["sequences"], "calibration_tokens": facts["tokens"]}
