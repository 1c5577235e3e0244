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
    from quantship.tasks import sequences
    from quantship.tasks.likelihood import answers, log_softmax

    assert context.reference is not None
    dataset, origins = sequences.load(subject, options.source, context, options.limit)
    batches = in_batches(dataset, context.batch_size)
    examples: list[Example] = []
    for batch in progress.track(batches, "comparing", len(batches)):
        ours, theirs = answers(subject.runtime, batch), answers(context.reference.runtime, batch)
        mask = batch["attention_mask"].numpy() if ours.shape[1] > 1 else np.ones(ours.shape[:2])
        log_q, log_p = log_softmax(ours), log_softmax(theirs)
        kl = ((np.exp(log_p) * (log_p - log_q)).sum(axis=-1) * mask).sum(axis=1)
        agreed = ((ours.argmax(axis=-1) == theirs.argmax(axis=-1)) * mask).sum(axis=1)
        for row in range(len(ours)):
            values = {"kl_nats": float(kl[row]), "top1_agreement": float(agreed[row])}
            examples.append(Example(origins[len(examples)], values, float(mask[row].sum())))
    return Outcome(METRICS, examples)
