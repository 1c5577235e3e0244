"""What a gate can limit: the metrics of a report, and for which models each is measured."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from quantship.recipe.evaluations import name_of
from quantship.recipe.gates import Gate
from quantship.recipe.language import (
    MODEL,
    ExportStep,
    QatStep,
    QuantizeStep,
    Recipe,
    SearchStep,
    Task,
)
from quantship.recipe.model_names import exported_as
from quantship.tasks.base import Metric
from quantship.tasks.table import TASKS


@dataclass(frozen=True)
class Maker:
    """How a model of a recipe comes about.

    Args:
        quantized: Whether its weights are integers.
        exported: Whether it is an export.
        trained: Whether it is a checkpoint that quantization-aware training left.
        as_it_came: Whether it is the model that the recipe starts from.
    """

    quantized: bool = False
    exported: bool = False
    trained: bool = False
    as_it_came: bool = False


@dataclass(frozen=True)
class Measure:
    """A metric of the report that is no task's.

    Args:
        better: Which way is better.
        unit: What its numbers are.
        needs: The part of the recipe that measures it; None: it is always known.
        of: Models that it is measured for.
        sampled: Whether it is a mean over examples, so that its bound can be told.
    """

    better: Literal["higher", "lower"]
    unit: Literal["bytes", "share", "number"] = "number"
    needs: Literal["evaluation", "benchmark"] | None = None
    of: Callable[[Maker], bool] = lambda maker: True
    sampled: bool = False


def _has_parity(maker: Maker) -> bool:
    return maker.exported or (maker.trained and maker.quantized)


def _has_codes(maker: Maker) -> bool:
    return maker.quantized and _has_parity(maker)


MEASURES = {
    "perplexity": Measure("lower", needs="evaluation", sampled=True),
    "token_accuracy": Measure("higher", "share", "evaluation", sampled=True),
    "kl": Measure("lower", needs="evaluation", of=_has_parity),
    "top1_agreement": Measure("higher", "share", "evaluation", of=_has_parity),
    "codes_equal": Measure("higher", needs="evaluation", of=_has_codes),
    "size": Measure("lower", "bytes"),
    "compression": Measure("higher"),
    "prefill_speed": Measure("higher", needs="benchmark"),
    "decode_speed": Measure("higher", needs="benchmark"),
    "prefill_speedup": Measure("higher", needs="benchmark"),
    "decode_speedup": Measure("higher", needs="benchmark"),
    "peak_memory": Measure("lower", "bytes", "benchmark"),
}
SPEEDUPS = ("prefill_speedup", "decode_speedup")


def makers(recipe: Recipe) -> dict[str, Maker]:
    """Every model of a resolved recipe, by name."""
    found = {MODEL: Maker(as_it_came=True)}
    for step in recipe.steps:
        if isinstance(step, ExportStep):
            for source, name in exported_as(step).items():
                if source in found:  # else another check says so
                    found[name] = Maker(quantized=found[source].quantized, exported=True)
        elif isinstance(step, QatStep):
            found[str(step.name)] = Maker(quantized=step.output == "quantized", trained=True)
        elif not isinstance(step, SearchStep):
            found[str(step.name)] = Maker(quantized=isinstance(step, QuantizeStep))
    return found


def task_of(recipe: Recipe, metric: str) -> Task | None:
    """The task whose metric ``<task>.<metric>`` is; None: no task of the recipe is called so."""
    tasks = recipe.evaluation.tasks if recipe.evaluation else ()
    called = metric.partition(".")[0]
    return next((task for task in tasks if name_of(task) == called), None)


def metrics_of(task: Task) -> Sequence[Metric] | None:
    """What a task measures; None where only the evaluation shows it."""
    metrics: Sequence[Metric] | None = getattr(TASKS[task.task], "METRICS", None)
    return metrics


def unmeasured(recipe: Recipe, metric: str, model: str, maker: Maker) -> str | None:
    """Why a metric is not measured for a model of the recipe; None: it is."""
    measure = MEASURES.get(metric)
    needs = "evaluation" if measure is None else measure.needs
    if needs is not None and getattr(recipe, needs) is None:
        return f"{metric} is not measured: the recipe has `{needs}: null`"
    baseline = recipe.evaluation is None or recipe.evaluation.baseline
    if needs is not None and maker.as_it_came and not baseline:
        return f"{model} is not measured: the recipe has `evaluation.baseline: false`"
    if measure is not None:
        if measure.of(maker):
            return None
        exports = "exported" if metric != "codes_equal" else "quantized and exported"
        return f"{metric} is measured for {exports} models, and {model} is none"
    task = task_of(recipe, metric)
    assert task is not None
    if task.models is not None and model not in task.models:
        return f"task '{name_of(task)}' does not evaluate {model}"
    if task.needs_reference and not maker.quantized and not maker.exported:
        return f"task '{name_of(task)}' compares with the float model, which {model} is"
    return None


def judged(recipe: Recipe, gate: Gate, metric: str) -> list[str]:
    """The models that have to keep to a gate's limit of a metric, in the recipe's order.

    Without names, every quantized model for which it is measured, but the one that the limit is
    relative to; for agreement with a checkpoint, exports alone.
    """
    if gate.models is not None:
        return list(gate.models)
    limit = gate.limits.get(metric)
    over = None if limit is None else limit.over
    parity = metric in MEASURES and MEASURES[metric].of in (_has_parity, _has_codes)
    return [
        name
        for name, maker in makers(recipe).items()
        if maker.quantized
        and name != over
        and (maker.exported or not parity)
        and unmeasured(recipe, metric, name, maker) is None
    ]
