"""Tasks that several runs have evaluated on the same examples, side by side."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from quantship import artifact
from quantship.comparing.opening import Opened
from quantship.comparing.schema import ComparedTask, TaskRow
from quantship.errors import QuantshipError
from quantship.reporting import evidence
from quantship.reporting.evidence import Measured
from quantship.reporting.evidence_schema import TaskFacts, TaskResult
from quantship.reporting.evidence_text import own_tasks
from quantship.reporting.task_scores import together
from quantship.results.evidence import job_name, model_scores

SEED = 0


@dataclass(frozen=True)
class _Entry:
    """One model of one run on a task."""

    run: Opened
    task: str
    model: str
    result: TaskResult

    @property
    def name(self) -> str:
        return f"{self.run.label}/{self.model}"


def compare(runs: Sequence[Opened]) -> list[ComparedTask]:
    """Tasks of equal examples and metrics that at least two of the runs have."""
    found: dict[tuple[str, str, tuple[str, ...]], list[tuple[Opened, TaskFacts]]] = {}
    for run in runs:
        for task in own_tasks(run.report):
            if task.metrics:
                key = (task.task, task.digest, tuple(one.name for one in task.metrics))
                found.setdefault(key, []).append((run, task))
    shared = [those for those in found.values() if len({run.label for run, _ in those}) > 1]
    return [_compared(those) for those in shared]


def _compared(those: Sequence[tuple[Opened, TaskFacts]]) -> ComparedTask:
    facts = those[0][1]
    headline = facts.metrics[0]
    entries = list(_entries(those))
    entries.sort(
        key=lambda one: one.result.metrics[headline.name].value,
        reverse=headline.better == "higher",
    )
    measured, unpaired = _paired(entries, facts)
    best = entries[0].name
    return ComparedTask(
        name=facts.name,
        task=facts.task,
        digest=facts.digest,
        num_examples=facts.num_examples,
        metrics=facts.metrics,
        runs=list(dict.fromkeys(run.label for run, _ in those)),
        rows=[
            TaskRow(
                model=one.name,
                result=one.result,
                behind=None
                if measured is None or one.name == best
                else evidence.difference(measured, headline, one.name, best),
            )
            for one in entries
        ],
        unpaired=unpaired,
    )


def _entries(those: Sequence[tuple[Opened, TaskFacts]]) -> Iterator[_Entry]:
    """All models, each once: one that a run has reused from another stands with the first."""
    known: set[str] = set()
    for run, task in those:
        for row in run.report.models:
            identity = run.fingerprints.get(row.name, f"{run.label}/{row.name}")
            if task.name in row.tasks and identity not in known:
                known.add(identity)
                yield _Entry(run, task.name, row.name, row.tasks[task.name])


def _paired(entries: Sequence[_Entry], facts: TaskFacts) -> tuple[Measured | None, str | None]:
    """The scores by example with resamples; or None, and why there are none."""
    models, lacking = {}, dict[str, None]()
    for one in entries:
        fingerprint = one.run.fingerprints.get(job_name(one.task, one.model))
        root = one.run.path.parent.parent.parent
        made = None if fingerprint is None else artifact.find(root, "task", fingerprint)
        if made is None:
            lacking[one.run.label] = None
        else:
            models[one.name] = model_scores(made, facts.metrics)
    if lacking:
        return None, (
            f"the examples of {', '.join(lacking)} are not at hand; they lie in steps/ beside runs/"
        )
    try:
        scores = together(facts.name, facts.task, facts.metrics, facts.notes, models)
    except QuantshipError as error:
        return None, str(error)
    measured = evidence.measure(scores, seed=SEED)
    few = f"{facts.num_examples} examples are too few to tell"
    return (measured, None) if measured.means else (None, few)
