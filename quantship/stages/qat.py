"""Train under fake quantization, and write the integers that were trained."""

from __future__ import annotations

from quantship.artifact import Facts
from quantship.frozen import Frozen
from quantship.job import Job
from quantship.quant.scheme import Scheme
from quantship.recipe.language import QatStep

REVISION = 1


class Settings(Frozen):
    """What a quantization-aware training depends on, beside its inputs."""

    step: QatStep
    scheme: Scheme
    seed: int


def run(job: Job) -> Facts:
    """Write a torchao checkpoint."""
    from datasets import load_from_disk

    from quantship.algorithms import rtn
    from quantship.models import load_float, load_tokenizer
    from quantship.quant.convert import convert
    from quantship.quant.modules import prepare_qat
    from quantship.training import train

    settings: Settings = job.settings
    source = job.inputs["model"].path
    model, tokenizer = load_float(source), load_tokenizer(source)
    prepare_qat(model, settings.scheme)
    training = train(
        model,
        load_from_disk(str(job.inputs["data"].path / "train")),
        settings.step,
        pad_token_id=tokenizer.pad_token_id or 0,
        seed=settings.seed,
        resume=job.resume,
    )
    parity = convert(model.cpu(), settings.scheme, rtn.quantize, job.out)
    tokenizer.save_pretrained(job.out)
    return {"training": training, "scheme": settings.scheme.name, "parity": parity}
