"""Perplexity and token accuracy on data of the task's own, or on the recipe's.

In a recipe: ``{task: perplexity, name: wikitext, source: {adapter: wikitext, path: test.txt}}``.
"""

from __future__ import annotations

from typing import Literal

from quantship.data import Source
from quantship.tasks.base import Context, Example, Metric, Outcome, Subject, TaskOptions

METRICS = (
    Metric("perplexity", "lower", "perplexity"),
    Metric("token_accuracy", "higher", "share"),
)


class Options(TaskOptions):
    """How well models predict a text."""

    task: Literal["perplexity"]
    source: Source | None = None
    """The text; default: the recipe's ``data.eval``."""


def evaluate(subject: Subject, options: Options, context: Context) -> Outcome:
    """Negative log-likelihood and hits of every sequence, and how losses a token are spread."""
    import numpy as np

    from quantship import progress
    from quantship.data.prepare import in_batches
    from quantship.tasks import likelihood, sequences

    dataset, origins = sequences.load(subject, options.source, context, options.limit)
    batches = in_batches(dataset, context.batch_size)
    found = likelihood.evaluate(
        subject.runtime, progress.track(batches, "evaluating", len(batches))
    )
    sums = found.sequences
    losses = sums.nll_nats / sums.num_tokens
    columns = zip(origins, sums.nll_nats, found.num_hits, sums.num_tokens, strict=True)
    return Outcome(
        METRICS,
        [
            Example(origin, {"perplexity": float(nll), "token_accuracy": float(hits)}, int(tokens))
            for origin, nll, hits, tokens in columns
        ],
        extra={
            "mean_loss": found.metrics["mean_loss"],
            "loss_p50": float(np.percentile(losses, 50)),
            "loss_p95": float(np.percentile(losses, 95)),
        },
    )
