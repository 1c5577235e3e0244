"""Train under fake quantization, and write the integers that were trained."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from quantship.artifact import Facts
from quantship.frozen import Frozen
from quantship.job import Job
from quantship.quant.scheme import Scheme
from quantship.recipe.language import QatStep
from quantship.recipe.tracking_options import TrackedRun

if TYPE_CHECKING:
    from pathlib import Path

REVISION = 2


class Settings(Frozen):
    """What a quantization-aware training depends on, beside its inputs."""

    step: QatStep
    scheme: Scheme
    seed: int
    tracking: TrackedRun | None = None
    """Whom to tell of it; changes nothing about the model."""


def run(job: Job) -> Facts:
    """Write a torchao checkpoint, or the clean float model that was trained to become one.

    Several processes train it together, and the first one writes it.
    """
    from datasets import load_from_disk

    from quantship import distillation, processes
    from quantship.grids import find_grids
    from quantship.models import copy_tokenizer, load_float, load_tokenizer, pad_token_id
    from quantship.quant import gpu_kernels, lora
    from quantship.quant.modules import prepare_qat
    from quantship.tracking import tracked
    from quantship.training import train

    settings: Settings = job.settings
    step, source, data = settings.step, job.inputs["model"].path, job.inputs["data"].path
    model: Any = load_float(source)
    teaching = None
    if step.distill is not None:
        teacher, tokenizer = job.inputs["teacher"].path, load_tokenizer(source)
        teaching = distillation.load(teacher, step.distill, model, tokenizer)
    prepare_qat(model, settings.scheme)
    calibrated = find_grids(
        model,
        step,
        data,
        fixes_weights=step.scales != "current",
        learned=step.scales == "learned",
    )
    if step.lora is not None:
        model = lora.add_adapters(model, step.lora, seed=settings.seed)
    training = train(
        model,
        load_from_disk(str(data / "train")),
        step,
        pad_token_id=pad_token_id(source),
        seed=settings.seed,
        resume=job.resume,
        tracked=tracked(settings.tracking, job.out) if processes.is_first() else None,
        teaching=teaching,
    )
    if not processes.is_first():
        return {"training": training}
    if step.lora is not None:
        model.save_pretrained(job.out / "adapter")
        model = lora.merge(model)  # where it was trained: devices multiply to other last bits
    written = _write(model.cpu(), step, job.out)
    copy_tokenizer(source, job.out)
    if step.output == "quantized":
        written["hardware_needs"] = gpu_kernels.needs(settings.scheme, packed=step.packed)
    return {
        "training": training,
        "scheme": settings.scheme.name,
        "calibration_sequences": calibrated,
        **written,
    }


def _write(model: Any, step: QatStep, out: Path) -> Facts:
    import torch

    from quantship.quant import handoff
    from quantship.quant.convert import convert
    from quantship.quant.modules import codes_of, restore_float

    if step.output == "quantized":
        return {"parity": convert(model, out, packed=step.packed)}
    handoff.save(codes_of(model), out)
    restore_float(model)
    model.to(torch.bfloat16).save_pretrained(out)
    return {"dtype": "bfloat16"}
