"""Lower a model to ONNX: the very integers of its checkpoint, in the form the recipe asks for."""

from __future__ import annotations

from quantship.artifact import Facts
from quantship.exporters.lowering import Lowering
from quantship.exporters.targets import Target
from quantship.frozen import Frozen
from quantship.job import Job
from quantship.quant.scheme import Scheme

REVISION = 3


class Settings(Frozen):
    """What an export depends on, beside its input; names that stand for others are resolved."""

    lowering: Lowering
    target: Target
    scheme: Scheme | None


def run(job: Job) -> Facts:
    """Write ``model.onnx`` and all that onnxruntime-genai needs beside it."""
    from quantship.errors import ParityError
    from quantship.exporters import codes, decoder

    settings: Settings = job.settings
    source = job.inputs["model"].path
    name = settings.scheme.name if settings.scheme else None
    facts = decoder.export(source, settings.lowering, name, job.out, settings.target)
    if settings.scheme is None:
        return facts
    compared = codes.compare(job.out, source)
    if not compared.equal:
        raise ParityError(
            f"{len(compared.different)} of {compared.tensors_compared} matrices are not the "
            f"checkpoint's in the ONNX model: {', '.join(compared.different[:5])}"
        )
    return {**facts, "codes_equal": True, "tensors_compared": compared.tensors_compared}
