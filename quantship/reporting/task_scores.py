"""What several models made of one task, made sure to be comparable example by example."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from quantship.errors import QuantshipError
from quantship.reporting.evidence_schema import MetricFacts

NUMBER = re.compile(r"([^0-9]*)([0-9]*)")
DATA = "data"
"""Name that a report has for the recipe's own evaluation data, beside its tasks."""


@dataclass(frozen=True)
class Words:
    """What was asked in an example and what a model said; None: nothing that can be shown."""

    prompt: str | None = None
    expected: str | None = None
    answer: str | None = None


@dataclass(frozen=True, eq=False)
class ModelScores:
    """What one model made of a task.

    Args:
        ids: Of the examples.
        weights: ``[examples]``, what each counts in a mean.
        sums: Metric to ``[examples]``: what its mean is taken of, times the weight.
        values: Each metric over all examples.
        words: Of each example.
        digest: Over what the examples are.
        runtime: What ran the model.
        seconds: Wall-clock seconds of the evaluation; None: not recorded.
        extra: Numbers that are no mean over examples.
    """

    ids: Sequence[str]
    weights: NDArray[np.float64]
    sums: Mapping[str, NDArray[np.float64]]
    values: Mapping[str, float]
    words: Sequence[Words]
    digest: str
    runtime: str
    seconds: float | None
    extra: Mapping[str, float]


@dataclass(frozen=True, eq=False)
class TaskScores:
    """What all models made of a task, on the same examples in the same order.

    Args:
        name: What the report calls it.
        task: What a recipe calls it.
        metrics: What was measured, the headline first.
        notes: What a reader should know.
        models: By name.
    """

    name: str
    task: str
    metrics: Sequence[MetricFacts]
    notes: Sequence[str]
    models: Mapping[str, ModelScores]

    @property
    def any_model(self) -> ModelScores:
        """One of them, for what they have in common."""
        return next(iter(self.models.values()))


def together(
    name: str,
    task: str,
    metrics: Sequence[MetricFacts],
    notes: Sequence[str],
    models: Mapping[str, ModelScores],
) -> TaskScores:
    """The scores of one task, sorted by the examples' ids.

    So neither the order in which examples were evaluated nor that of the models changes a number.

    Raises:
        QuantshipError: Two models were not given the same examples, or two examples have one id.
    """
    arranged = {model: _sorted(name, model, scores) for model, scores in models.items()}
    first = next(iter(arranged))
    for model, scores in arranged.items():
        _require_same(name, first, arranged[first], model, scores)
    return TaskScores(name, task, metrics, notes, arranged)


def _sorted(task: str, model: str, scores: ModelScores) -> ModelScores:
    order = sorted(range(len(scores.ids)), key=lambda place: _natural(scores.ids[place]))
    ids = [scores.ids[place] for place in order]
    twice = next((one for one, other in pairwise(ids) if one == other), None)
    if twice is not None:
        raise QuantshipError(f"task '{task}' of {model}: two examples are called {twice}")
    return replace(
        scores,
        ids=ids,
        weights=scores.weights[order],
        sums={metric: column[order] for metric, column in scores.sums.items()},
        words=[scores.words[place] for place in order],
    )


def _natural(name: str) -> list[tuple[str, int]]:
    """A key that sorts ``test[9]`` before ``test[10]``."""
    parts = NUMBER.findall(name)
    return [(text, int(digits or -1)) for text, digits in parts]


def _require_same(task: str, first: str, one: ModelScores, second: str, other: ModelScores) -> None:
    if one.ids == other.ids and one.digest == other.digest:
        return
    pairs = zip(one.ids, other.ids, strict=False)
    differing = next((f"{a} and {b}" for a, b in pairs if a != b), None)
    if differing is not None:
        how = f"the first that differ are {differing}"
    elif len(one.ids) != len(other.ids):
        how = f"{len(one.ids)} and {len(other.ids)} of them"
    else:
        how = "they are called the same, but their texts, answers or weights differ"
    raise QuantshipError(
        f"task '{task}': {first} and {second} were not given the same examples ({how}), so they "
        "cannot be compared"
    )
