"""Whether model, data and steps agree on what they work with: text, or samples to classify."""

from __future__ import annotations

import json
from collections.abc import Iterator

from quantship.data import Source, digits, holds_samples
from quantship.mlp import MODEL_TYPE
from quantship.recipe.findings import Finding
from quantship.recipe.language import Data, ExportStep, Model, QatStep, Recipe
from quantship.recipe.yaml_source import Key

Sizes = tuple[int, ...]
"""Widths of a classifier, from its features to its classes."""


def find_problems(recipe: Recipe) -> Iterator[Finding]:
    """Everything that a model of text, or one of samples, cannot be given or asked for.

    Args:
        recipe: With the names, inputs and schemes of its steps filled in.
    """
    sizes = _sizes(recipe.model)
    for part in ("train", "eval"):
        for index, source in enumerate(getattr(recipe.data, part)):
            yield from _source_findings(("data", part, index), source, sizes)
    if sizes is not None:
        yield from _option_findings(recipe.data)
        yield from _work_findings(recipe)


def _sizes(model: Model) -> Sizes | None:
    """Widths of the model where it is a classifier; None where it is one of text."""
    if model.mlp is not None:
        return model.mlp.sizes
    if model.path is None:
        return None
    try:
        config = json.loads((model.path / "config.json").read_bytes())
        return tuple(config["sizes"]) if config["model_type"] == MODEL_TYPE else None
    except (OSError, ValueError, RecursionError, LookupError, TypeError):
        return None  # what is wrong with it is found elsewhere


def _source_findings(key: Key, source: Source, sizes: Sizes | None) -> Iterator[Finding]:
    where = (*key, "adapter")
    if not holds_samples(source):
        if sizes is not None:
            message = f"adapter {source.adapter} reads text, and the model classifies samples"
            yield Finding(where, message, "Use a source of samples: digits.")
        return
    if sizes is None:
        message = f"adapter {source.adapter} reads samples to classify, and the model reads text"
        yield Finding(where, message, "Use `model: {mlp: {sizes: [784, 512, 10]}}`.")
    elif sizes[0] != digits.NUM_FEATURES or sizes[-1] != digits.NUM_CLASSES:
        message = (
            f"adapter {source.adapter} has {digits.NUM_FEATURES} features and "
            f"{digits.NUM_CLASSES} classes, and the model's sizes go from {sizes[0]} to {sizes[-1]}"
        )
        yield Finding(where, message, "Give the model these sizes at its ends.")
    reason = digits.unavailable()
    if reason is not None:
        yield Finding(where, reason, "Install it: pip install 'quantship[examples]'.")


def _option_findings(data: Data) -> Iterator[Finding]:
    """Options for text that samples have no use for."""
    for name in ("max_length", "chat_template", "mask_prompt", "packing"):
        if getattr(data, name) != Data.model_fields[name].default:
            message = f"{name} is about text, and the model classifies samples"
            yield Finding(("data", name), message, "Leave it out.")


def _work_findings(recipe: Recipe) -> Iterator[Finding]:
    """Work that is for models of text only."""
    for index, step in enumerate(recipe.steps):
        if isinstance(step, QatStep) and step.distill is not None:
            message = "compares predictions of tokens, and the model classifies samples"
            yield Finding(("steps", index, "distill"), message, "Leave it out.")
        if isinstance(step, ExportStep) and step.format != "onnx":
            message = f"{step.format} is for models of text, and the model classifies samples"
            yield Finding(("steps", index, "format"), message, "Leave it out: onnx.")
