"""Measure how well a model predicts the evaluation data, and how far it is from its source."""

from __future__ import annotations

from quantship.artifact import Facts
from quantship.frozen import Frozen
from quantship.job import Job

REVISION = 4


class Settings(Frozen):
    """What an evaluation depends on, beside its inputs."""

    batch_size: int
    limit: int | None
    parity_sequences: int


def run(job: Job) -> Facts:
    """Metrics of the ``model`` input; parity with the ``reference`` input where there is one.

    Writes the losses of every sequence, so that models can be compared on the same sequences.
    """
    from datasets import load_from_disk

    from quantship import progress
    from quantship.data.prepare import in_batches
    from quantship.runtimes.base import classifies, open_classifier, open_runtime
    from quantship.tasks import agreement, likelihood

    settings: Settings = job.settings
    dataset = load_from_disk(str(job.inputs["data"].path / "eval"))
    size = min(len(dataset), settings.limit or len(dataset))
    model = job.inputs["model"].path
    opened = open_classifier if classifies(model) else open_runtime
    runtime = opened(model)
    batches = in_batches(dataset.select(range(size)), settings.batch_size)
    found = likelihood.evaluate(runtime, progress.track(batches, "evaluating", len(batches)))
    likelihood.write_sequences(found.sequences, job.out, found.num_hits)
    facts: Facts = {"metrics": found.metrics}
    if "reference" not in job.inputs:
        return facts
    reference = job.inputs["reference"].path
    few = batches[: -(-min(size, settings.parity_sequences) // settings.batch_size)]
    parity: Facts = dict(
        agreement.compare(runtime, opened(reference), progress.track(few, "comparing", len(few)))
    )
    parity.update(codes_equal=None, tensors_compared=0)
    if "codes_equal" in job.inputs["model"].facts:
        from quantship.exporters import read_back

        compared = read_back.compare(model, reference)
        parity.update(codes_equal=compared.equal, tensors_compared=compared.tensors_compared)
    return {**facts, "parity": parity}
