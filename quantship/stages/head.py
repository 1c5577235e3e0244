"""Give an encoder a head that tells the classes of the recipe's data."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from quantship.artifact import Facts
from quantship.frozen import Frozen
from quantship.job import Job

if TYPE_CHECKING:
    from pathlib import Path

REVISION = 1
BASE = "model without head"
"""Name of the node of the model that gets one."""


class Settings(Frozen):
    """What a head depends on, beside the model."""

    classes: tuple[str, ...]
    seed: int


def run(job: Job) -> Facts:
    """Write the model with a head for the classes: its own where it knows them, else a new one."""
    import torch
    from transformers import AutoModelForSequenceClassification

    from quantship.models import load_tokenizer

    settings: Settings = job.settings
    source = job.inputs["model"].path
    classes, is_kept = _classes(source, settings.classes)
    with torch.random.fork_rng(devices=[]), _unwarned():
        torch.manual_seed(settings.seed)
        model: Any = AutoModelForSequenceClassification.from_pretrained(
            source,
            dtype=torch.float32,
            use_safetensors=True,
            trust_remote_code=False,
            num_labels=len(classes),
            id2label=dict(enumerate(classes)),
            label2id={name: index for index, name in enumerate(classes)},
            problem_type="single_label_classification",
            ignore_mismatched_sizes=True,
        )
        if not is_kept:  # one of this size, for other classes, was loaded
            _draw_head(model)
    model.save_pretrained(job.out)
    load_tokenizer(source).save_pretrained(job.out)
    return {"classes": list(classes), "new_head": not is_kept}


def _draw_head(model: Any) -> None:
    """Draw the weights that the encoder lacks, whatever they are."""
    inside = set(map(id, model.base_model.modules()))
    for module in model.modules():
        if module is not model and id(module) not in inside:
            for parameter in module.parameters(recurse=False):
                parameter._is_hf_initialized = False
            model._init_weights(module)


@contextmanager
def _unwarned() -> Iterator[None]:
    """Without transformers' report of the weights that are missing: those of the new head."""
    from transformers import logging

    before = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(before)


def _classes(source: Path, wanted: tuple[str, ...]) -> tuple[tuple[str, ...], bool]:
    """Classes in the order of the model's logits, and whether it tells them already."""
    from quantship.models import read_config
    from quantship.runtimes.kinds import class_names, is_unnamed, kind_of, places

    config = read_config(source)
    known = class_names(config)
    if kind_of(config) != "texts" or places(wanted, known) is None:
        return wanted, False
    return wanted if is_unnamed(known) else known, True
