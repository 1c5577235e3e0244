"""Quantize a float model while it is loaded, without a checkpoint, and measure it.

That is what serving engines do when they are given a float model and a ``TorchAoConfig``. The
rounding is torchao's own; whether it finds the checkpoint's integers is counted.
"""

from __future__ import annotations

from typing import Any

from quantship.artifact import Facts
from quantship.frozen import Frozen
from quantship.job import Job
from quantship.quant.scheme import Scheme
from quantship.recipe.language import QuantizeStep

REVISION = 2


class Settings(Frozen):
    """What an evaluation of a model that is quantized on load depends on, beside its inputs."""

    scheme: Scheme
    batch_size: int
    limit: int | None


def reject(scheme: Scheme, step: QuantizeStep) -> str | None:
    """Why torchao cannot quantize as a step does while loading, or None where it can."""
    if scheme.is_static:
        return f"scheme '{scheme.name}' has static input ranges, which need calibration"
    if step.algorithm.kind != "rtn" or step.bias_correction:
        return "torchao rounds to nearest when it loads, and corrects no bias"
    if step.range != "minmax":
        return f"torchao rounds by minimum and maximum when it loads, not by {step.range}"
    return None


def run(job: Job) -> Facts:
    """Metrics of the ``model`` input quantized on load, and its codes held to ``checkpoint``'s."""
    from datasets import load_from_disk

    from quantship import progress
    from quantship.data.prepare import in_batches
    from quantship.quant import checkpoint
    from quantship.quant.handoff import count
    from quantship.quant.loading import load_online
    from quantship.quant.tensors import codes_in
    from quantship.runtimes.pytorch import TorchRuntime
    from quantship.tasks import likelihood

    settings: Settings = job.settings
    model: Any = load_online(job.inputs["model"].path, settings.scheme)
    stored = checkpoint.load_codes(job.inputs["checkpoint"].path)
    dataset = load_from_disk(str(job.inputs["data"].path / "eval"))
    size = min(len(dataset), settings.limit or len(dataset))
    groups = in_batches(dataset.select(range(size)), settings.batch_size)
    found = likelihood.evaluate(
        TorchRuntime.of(model), progress.track(groups, "evaluating", len(groups))
    )
    return {
        "metrics": found.metrics,
        "codes": count(codes_in(model), {name: part.codes for name, part in stored.items()}),
    }
