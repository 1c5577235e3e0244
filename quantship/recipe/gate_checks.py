"""Gates that cannot be judged or make no sense, found before anything runs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from quantship.recipe.evaluations import name_of
from quantship.recipe.findings import Finding
from quantship.recipe.gate_metrics import (
    MEASURES,
    SPEEDUPS,
    Maker,
    judged,
    makers,
    metrics_of,
    task_of,
    unmeasured,
)
from quantship.recipe.gates import Gate, Limit, number, unit
from quantship.recipe.keys import suggest
from quantship.recipe.language import Recipe
from quantship.recipe.yaml_source import Key

ABSOLUTE = ("min", "max")
RELATIVE = ("min_ratio", "max_ratio", "max_increase", "max_decrease")
FROM_BELOW = ("min", "min_ratio", "max_decrease")
"""Bounds that a number must not fall below."""
BYTES = ("B", "kB", "MB", "GB")


@dataclass(frozen=True)
class _Kind:
    """What is known of a metric; None where only the evaluation shows it."""

    better: str | None
    unit: str | None
    sampled: bool


def find_problems(recipe: Recipe) -> Iterator[Finding]:
    """What is wrong with the gates of a resolved recipe."""
    known = makers(recipe)
    for index, gate in enumerate(recipe.gates):
        key = ("gates", index)
        if not gate.limits and not gate.codes_equal:
            if gate.codes_equal is None:
                yield Finding(key, "limits nothing", f"Give a metric: {', '.join(MEASURES)}.")
            else:
                message = "false asks for nothing"
                yield Finding((*key, "codes_equal"), message, "Give true, or leave it out.")
        for place, model in enumerate(gate.models or ()):
            if model not in known:
                remedy = f"{suggest(model, known)}Models here: {', '.join(known)}."
                yield Finding((*key, "models", place), f"no model is called '{model}'", remedy)
        metrics = [*gate.limits, *(["codes_equal"] if gate.codes_equal else [])]
        for metric in metrics:
            yield from _of_metric(recipe, gate, metric, (*key, metric), known)


def _of_metric(
    recipe: Recipe, gate: Gate, metric: str, key: Key, known: dict[str, Maker]
) -> Iterator[Finding]:
    stranger = _stranger(recipe, metric)
    if stranger is not None:
        yield Finding(key, *stranger)
        return
    limit = gate.limits.get(metric)
    if limit is not None:
        yield from _of_limit(limit, metric, _kind(recipe, metric), key, list(known))
    models = [name for name in judged(recipe, gate, metric) if name in known]
    reasons = [unmeasured(recipe, metric, name, known[name]) for name in models]
    if gate.models is None and not models:
        some = next((n for n, maker in known.items() if maker.quantized), None)
        reason = None if some is None else unmeasured(recipe, metric, some, known[some])
        message = reason or "the recipe has no quantized model that this is measured for"
        yield Finding(key, message, "Name models that it is measured for, or take the gate out.")
    for reason in dict.fromkeys(one for one in reasons if one is not None):
        yield Finding(key, reason, "Measure it, or name other models under `models`.")
    over = None if limit is None else limit.over
    if over in models and over is not None:
        yield Finding((*key, "over"), f"'{over}' is compared with itself", "Name another model.")
    elif over in known and over is not None:
        reason = unmeasured(recipe, metric, over, known[over])
        if reason is not None:
            yield Finding((*key, "over"), reason, "Measure it, or compare with another model.")


def _stranger(recipe: Recipe, metric: str) -> tuple[str, str] | None:
    """What is wrong with a metric's name, and what to do."""
    if metric in MEASURES:
        return None
    tasks = [name_of(task) for task in (recipe.evaluation.tasks if recipe.evaluation else ())]
    offered = [*MEASURES, *_of_tasks(recipe)]
    if "." not in metric:
        return f"no metric is called '{metric}'", f"{suggest(metric, offered)}{_offer(offered)}"
    called, _, name = metric.partition(".")
    task = task_of(recipe, metric)
    if task is None:
        listed = f"Tasks: {', '.join(tasks)}." if tasks else "The recipe has no evaluation.tasks."
        return f"no task is called '{called}'", suggest(called, tasks) + listed
    metrics = metrics_of(task)
    names = [one.name for one in metrics or ()]
    if metrics is not None and name not in names:
        remedy = f"{suggest(name, names)}It measures: {', '.join(names)}."
        return f"task '{called}' does not measure '{name}'", remedy
    return None


def _of_tasks(recipe: Recipe) -> list[str]:
    tasks = recipe.evaluation.tasks if recipe.evaluation else ()
    return [f"{name_of(task)}.{one.name}" for task in tasks for one in metrics_of(task) or ()]


def _offer(metrics: list[str]) -> str:
    return f"Metrics: {', '.join(metrics)}; of a task: <task>.<metric>."


def _kind(recipe: Recipe, metric: str) -> _Kind:
    measure = MEASURES.get(metric)
    if measure is not None:
        return _Kind(measure.better, measure.unit, measure.sampled)
    task = task_of(recipe, metric)
    assert task is not None
    name = metric.partition(".")[2]
    found = next((one for one in metrics_of(task) or () if one.name == name), None)
    if found is None:
        return _Kind(None, None, sampled=True)
    return _Kind(found.better, "share" if found.kind == "share" else "number", sampled=True)


def _of_limit(
    limit: Limit, metric: str, kind: _Kind, key: Key, models: list[str]
) -> Iterator[Finding]:
    given = [bound for bound in (*ABSOLUTE, *RELATIVE) if getattr(limit, bound) is not None]
    if not given:
        yield Finding(key, "gives no limit", f"Give {', '.join((*ABSOLUTE, *RELATIVE))}.")
    for bound in given:
        yield from _of_bound(limit, bound, metric, kind, (*key, bound))
    if limit.min is not None and limit.max is not None and number(limit.min) > number(limit.max):
        yield Finding((*key, "min"), "nothing keeps to it: min is above max", "Change one of them.")
    low, high = limit.min_ratio, limit.max_ratio
    if low is not None and high is not None and low > high:
        message = "nothing keeps to it: min_ratio is above max_ratio"
        yield Finding((*key, "min_ratio"), message, "Change one of them.")
    relative = [bound for bound in given if bound in RELATIVE]
    models_here = f"Models here: {', '.join(models)}."
    if relative and limit.over is None:
        remedy = f"Name the model to compare with: `over: finetune`. {models_here}"
        yield Finding((*key, relative[0]), "over what? `over` is missing", remedy)
    if limit.over is not None and limit.over not in models:
        message = f"no model is called '{limit.over}'"
        yield Finding((*key, "over"), message, suggest(limit.over, models) + models_here)
    if limit.over is not None and given and not relative and metric not in SPEEDUPS:
        remedy = f"Give one of {', '.join(RELATIVE)}, or leave `over` out."
        yield Finding((*key, "over"), f"{given[0]} is compared with no other model", remedy)
    if limit.confidence is not None and not kind.sampled:
        remedy = "Leave it out. Perplexity, token accuracy and the metrics of tasks have it."
        message = f"{metric} is no mean over examples, so there is no bound to tell"
        yield Finding((*key, "confidence"), message, remedy)


def _of_bound(limit: Limit, bound: str, metric: str, kind: _Kind, key: Key) -> Iterator[Finding]:
    below = bound in FROM_BELOW
    if kind.better is not None and below == (kind.better == "lower"):
        other = {"min": "max", "max": "min", "min_ratio": "max_ratio", "max_ratio": "min_ratio"}
        swapped = other.get(bound) or (
            "max_decrease" if bound == "max_increase" else "max_increase"
        )
        message = f"{kind.better} {metric} is better, and {bound} would stop the best models"
        yield Finding(key, message, f"Did you mean {swapped}?")
    written = getattr(limit, bound)
    if isinstance(written, float):
        if metric in SPEEDUPS:
            message = f"{metric} is a ratio already"
            yield Finding(key, message, "Give `min`, with `over` beside it.")
        return
    value, given_in = number(written), unit(written)
    allowed = _allowed_units(bound, kind)
    if given_in not in allowed:
        names = ", ".join(one or "a plain number" for one in allowed)
        yield Finding(key, f"{metric} is not given in {given_in}", f"Give it as: {names}.")
    elif value < 0:
        yield Finding(key, f"{written} is below 0", "Give a limit of 0 or more.")
    elif kind.unit == "share" and value > 1:
        message = f"{metric} is a share from 0 to 1, and the limit is {written}"
        yield Finding(key, message, "Give it as 0.9 or 90%.")


def _allowed_units(bound: str, kind: _Kind) -> tuple[str, ...]:
    own = {"bytes": ("", *BYTES), "share": ("", "%")}.get(kind.unit or "", ("",))
    if bound in ("max_increase", "max_decrease"):
        return (*own, "%") if "%" not in own else own
    return own if kind.unit is not None else ("", "%")
