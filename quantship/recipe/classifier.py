"""Whether model, data and steps agree on what they work with: text, or classes to tell.

Three kinds of models are told apart: of language, which predict tokens; of samples (``mlp``); and
encoders that tell the classes of texts.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from quantship.data import Source, class_names, digits, holds_samples
from quantship.mlp import MODEL_TYPE
from quantship.recipe.findings import Finding
from quantship.recipe.language import ExportStep, Model, QatStep, Recipe, SearchStep, Task
from quantship.recipe.yaml_source import Key
from quantship.runtimes.kinds import Kind, kind_of, places
from quantship.runtimes.kinds import class_names as known_classes

Sizes = tuple[int, ...]
"""Widths of a classifier, from its features to its classes."""
WHAT = {"samples": "classifies samples", "texts": "tells the classes of texts"}
"""What models do that do not predict tokens."""
UNUSED = {
    "samples": ("max_length", "chat_template", "mask_prompt", "packing"),
    "texts": ("chat_template", "mask_prompt", "packing"),
}
"""Options of the data that these models have no use for."""


def kind_of_model(model: Model) -> Kind:
    """What a recipe's model reads and answers; one from the Hub without a head is of language."""
    if model.mlp is not None:
        return "samples"
    return "texts" if model.head is not None else kind_of(_config(model))


def find_problems(recipe: Recipe) -> Iterator[Finding]:
    """Everything that a model of one kind cannot be given or asked for.

    Args:
        recipe: With the names, inputs and schemes of its steps filled in.
    """
    kind = kind_of_model(recipe.model)
    for part in ("train", "eval"):
        for index, source in enumerate(getattr(recipe.data, part)):
            yield from _source_findings(("data", part, index, "adapter"), source, recipe)
    yield from _task_findings(recipe, kind)
    if kind != "language":
        yield from _option_findings(recipe, kind)
        yield from _work_findings(recipe, kind)


def _config(model: Model) -> dict[str, Any]:
    """``config.json`` of a local model; empty where there is none that can be read."""
    try:
        assert model.path is not None
        config = json.loads((model.path / "config.json").read_bytes())
    except (AssertionError, OSError, ValueError, RecursionError):
        return {}  # what is wrong with it is found elsewhere
    return config if isinstance(config, dict) else {}


def _sizes(model: Model) -> Sizes | None:
    """Widths of a classifier of samples, where they are known."""
    if model.mlp is not None:
        return model.mlp.sizes
    config = _config(model)
    sizes = config.get("sizes")
    if config.get("model_type") != MODEL_TYPE or not isinstance(sizes, list) or not sizes:
        return None
    return tuple(sizes)


def _source_findings(key: Key, source: Source, recipe: Recipe) -> Iterator[Finding]:
    kind = kind_of_model(recipe.model)
    if holds_samples(source):
        yield from _sample_findings(key, source, recipe.model, kind)
    elif kind == "samples":
        message = f"adapter {source.adapter} reads text, and the model classifies samples"
        yield Finding(key, message, "Use a source of samples: digits.")
    elif kind == "texts":
        yield from _class_findings(key, source, recipe)


def _sample_findings(key: Key, source: Source, model: Model, kind: Kind) -> Iterator[Finding]:
    if kind != "samples":
        message = f"adapter {source.adapter} reads samples to classify, and the model reads text"
        yield Finding(key, message, "Use `model: {mlp: {sizes: [784, 512, 10]}}`.")
    else:
        sizes = _sizes(model)
        if sizes and (sizes[0] != digits.NUM_FEATURES or sizes[-1] != digits.NUM_CLASSES):
            message = (
                f"adapter {source.adapter} has {digits.NUM_FEATURES} features and "
                f"{digits.NUM_CLASSES} classes, and the model's sizes go from {sizes[0]} to "
                f"{sizes[-1]}"
            )
            yield Finding(key, message, "Give the model these sizes at its ends.")
    reason = digits.unavailable()
    if reason is not None:
        yield Finding(key, reason, "Install it: pip install 'quantship[examples]'.")


def _class_findings(key: Key, source: Source, recipe: Recipe) -> Iterator[Finding]:
    """Sources whose records have no classes, or others than the model tells."""
    classes = class_names(source)
    if not classes:
        message = f"adapter {source.adapter} has no classes, and the model tells those of texts"
        yield Finding(key, message, "Use a source that has them: glue or superglue.")
        return
    if recipe.model.head is not None:
        known = class_names(next(iter(recipe.data.sources), source))
        whose = "the first source of the data has"
        remedy = "Use sources of one task."
    else:
        known, whose = known_classes(_config(recipe.model)), "the model tells"
        remedy = "Add `head: classification` below `model`: it gives it a head for these classes."
    if known and places(classes, known) is None:
        message = f"its classes are {', '.join(classes)}, and {whose} {', '.join(known)}"
        yield Finding(key, message, remedy)


def _task_findings(recipe: Recipe, kind: Kind) -> Iterator[Finding]:
    for index, task in enumerate(recipe.evaluation.tasks if recipe.evaluation else ()):
        key: Key = ("evaluation", "tasks", index)
        source: Source | None = getattr(task, "source", None)
        if task.task == "classification":
            yield from _classification_findings(key, source, recipe, kind)
        elif kind != "language" and not _needs_data_alone(task):
            message = f"task {task.task} is for models of language, and the model {WHAT[kind]}"
            yield Finding((*key, "task"), message, "Use the task classification.")


def _classification_findings(
    key: Key, source: Source | None, recipe: Recipe, kind: Kind
) -> Iterator[Finding]:
    if kind == "language":
        message = "classification is for models that tell classes, and the model predicts tokens"
        remedy = (
            "Use the task choices; or, for an encoder as BERT, "
            "`model: {path: FOLDER, head: classification}` (or hub)."
        )
        yield Finding((*key, "task"), message, remedy)
    elif source is not None:
        yield from _source_findings((*key, "source", "adapter"), source, recipe)


def _needs_data_alone(task: Task) -> bool:
    """Whether a task predicts the recipe's own data, whatever the model."""
    return task.task in ("perplexity", "divergence") and task.source is None


def _option_findings(recipe: Recipe, kind: Kind) -> Iterator[Finding]:
    """Options for text that classifiers have no use for."""
    data = recipe.data
    about = "text" if kind == "samples" else "chats and running text"
    for name in UNUSED[kind]:
        if getattr(data, name) != type(data).model_fields[name].default:
            message = f"{name} is about {about}, and the model {WHAT[kind]}"
            yield Finding(("data", name), message, "Leave it out.")


def _work_findings(recipe: Recipe, kind: Kind) -> Iterator[Finding]:
    """Work that is for models of language only."""
    for index, step in enumerate(recipe.steps):
        if isinstance(step, QatStep) and step.distill is not None:
            message = f"compares predictions of tokens, and the model {WHAT[kind]}"
            yield Finding(("steps", index, "distill"), message, "Leave it out.")
        if isinstance(step, SearchStep) and step.max_latency_ms is not None:
            message = f"is the time of a token that follows others, and the model {WHAT[kind]}"
            remedy = "Give another limit: target_bits, max_bytes or max_perplexity_increase."
            yield Finding(("steps", index, "max_latency_ms"), message, remedy)
        if isinstance(step, ExportStep) and step.format != "onnx":
            message = f"{step.format} is for models of language, and the model {WHAT[kind]}"
            yield Finding(("steps", index, "format"), message, "Leave it out: onnx.")
