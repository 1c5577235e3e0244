"""How far a model's predictions are from those of the float model that it comes from.

- {task: divergence, source: {adapter: wikitext, path: test.txt}, limit: 32}
"""

from __future__ import annotations

from typing import Literal

from quantship.data import Source
from quantship.tasks.base import Context, Example, Metric, Outcome, Subject, TaskOptions

METRICS = (
    Metric("kl_nats", "lower", "nats"),
    Metric("top1_agreement", "higher", "share"),
)


class Options(TaskOptions):
    """KL divergence from, and agreement with, the float model, on every runtime."""

    task: Literal["divergence"]
    source: Source | None = None
    """The text; default: the recipe's ``data.eval``."""

    @property
    def needs_reference(self) -> bool:
        """Always: that is what it measures."""
        return True


def evaluate(subject: Subject, options: Options, context: Context) -> Outcome:
    """KL(float || model) and equal most likely tokens, over all tokens but padding."""
    import numpy as np

    from quantship import progress
    from quantship.data.prepare import in_batches
    from quantship.tasks import distributions, sequences
    from quantship.tasks.agreement import counting
    from quantship.tasks.likelihood import answers

    assert context.reference is not None
    dataset, origins = sequences.load(subject, options.source, context, options.limit)
    batches = in_batches(dataset, context.batch_size)
    examples: list[Example] = []
    for batch in progress.track(batches, "comparing", len(batches)):
        counts = counting(batch)
        kl, agreed = np.zeros(counts.shape), np.zeros(counts.shape)
        kl[counts], agreed[counts], _ = distributions.distances(
            answers(subject.runtime, batch),
            answers(context.reference.runtime, batch),
            np.flatnonzero(counts),
        )
        for row, num_tokens in enumerate(counts.sum(axis=1)):
            values = {
                "kl_nats": float(kl[row].sum()),
                "top1_agreement": float(agreed[row].sum()),
            }
            examples.append(Example(origins[len(examples)], values, float(num_tokens)))
    return Outcome(METRICS, examples)
