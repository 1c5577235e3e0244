"""Lower a model: the very integers of its checkpoint, as the recipe asks for them."""

from __future__ import annotations

from pathlib import Path

from quantship.artifact import Facts
from quantship.exporters.formats import FormatName
from quantship.exporters.lowering import Lowering
from quantship.exporters.targets import Target
from quantship.frozen import Frozen
from quantship.job import Job
from quantship.quant.scheme import Scheme

REVISION = 4


ON_CUDA = (
    "made for onnxruntime's CUDA provider (package onnxruntime-gpu); on a CPU it runs as well, by "
    "kernels that it was not made for"
)


class Settings(Frozen):
    """What an export depends on, beside its input; names that stand for others are resolved."""

    format: FormatName = "onnx"
    lowering: Lowering | None
    """None where the format has no choice of them."""
    target: Target
    scheme: Scheme | None


def run(job: Job) -> Facts:
    """Write the model and all that clients look for beside it."""
    from quantship.errors import ParityError
    from quantship.exporters import read_back

    settings: Settings = job.settings
    source = job.inputs["model"].path
    facts = {**_export(source, settings, job.out), "format": settings.format, **_advice(settings)}
    if settings.target == "cuda":
        facts["hardware_needs"] = [ON_CUDA]
    if settings.scheme is None:
        return facts
    compared = read_back.compare(job.out, source)
    if not compared.equal:
        raise ParityError(
            f"{len(compared.different)} of {compared.tensors_compared} matrices are not the "
            f"checkpoint's in the exported model: {', '.join(compared.different[:5])}"
        )
    return {**facts, "codes_equal": True, "tensors_compared": compared.tensors_compared}


def _advice(settings: Settings) -> Facts:
    """Why it was done so, and what to know about it wherever the model runs."""
    from quantship.exporters import advice

    if settings.lowering is None:
        return {}
    given = settings.lowering, settings.scheme, settings.target
    return {"lowering_reason": advice.reason(*given), "warnings": list(advice.warnings(*given))}


def _export(source: Path, settings: Settings, out: Path) -> Facts:
    from quantship.exporters import openvino, pretrained

    name = settings.scheme.name if settings.scheme else None
    if settings.format == "openvino":
        return openvino.export(source, name, out)
    assert settings.lowering is not None
    return pretrained.export(source, settings.lowering, name, out, settings.target)
