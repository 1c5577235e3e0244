"""Examples that a model has lost against its float model: the first thing to read."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from quantship.reporting.evidence_schema import LostExample, MetricFacts, Regressions
from quantship.reporting.formatting import shortened
from quantship.reporting.task_scores import ModelScores, TaskScores

MOST_LISTED = 20
LONGEST = 600
"""Characters of each text; the whole one is in the evaluation's examples.jsonl."""


def find(scores: TaskScores, model: str, over: str) -> Iterator[Regressions]:
    """What a model lost and won against another, for each metric that judges examples.

    Args:
        scores: Of the task.
        model: Name of the model.
        over: Name of its float model.
    """
    one, other = scores.models[model], scores.models[over]
    for metric in scores.metrics:
        if not metric.judges:
            continue
        ours, theirs = _right(one, metric), _right(other, metric)
        lost = np.flatnonzero(theirs & ~ours)
        yield Regressions(
            task=scores.name,
            metric=metric.name,
            model=model,
            over=over,
            num_lost=len(lost),
            num_won=int((ours & ~theirs).sum()),
            examples=[_example(one, other, int(place)) for place in lost[:MOST_LISTED]],
        )


def _right(scores: ModelScores, metric: MetricFacts) -> NDArray[np.bool_]:
    return (scores.weights > 0) & (scores.sums[metric.name] > scores.weights / 2)


def _example(one: ModelScores, other: ModelScores, place: int) -> LostExample:
    asked, said = one.words[place], other.words[place]
    return LostExample(
        id=one.ids[place],
        prompt=shortened(asked.prompt, LONGEST),
        expected=shortened(asked.expected, LONGEST),
        before=shortened(said.answer, LONGEST),
        after=shortened(asked.answer, LONGEST),
    )
