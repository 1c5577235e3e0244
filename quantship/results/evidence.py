"""Collect what the jobs of tasks have left, and compare the models on it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from quantship.artifact import Artifact
from quantship.job import Node, Plan
from quantship.reporting import evidence
from quantship.reporting.comparison import runtime
from quantship.reporting.evidence import Measured
from quantship.reporting.evidence_schema import Evidence, MetricFacts
from quantship.reporting.pairs import Pair, pairs
from quantship.reporting.recovery_schema import Recovery
from quantship.reporting.schema import EvaluationData, ModelRow
from quantship.reporting.task_scores import DATA, ModelScores, TaskScores, Words, together
from quantship.tasks import likelihood, scores

PERPLEXITY = MetricFacts(name="perplexity", better="lower", kind="perplexity", judges=False)
ACCURACY = MetricFacts(name="token_accuracy", better="higher", kind="share", judges=False)


def measure(
    plan: Plan,
    made: Mapping[str, Artifact],
    rows: Sequence[ModelRow],
    evaluated: Mapping[str, likelihood.Sequences],
    data: EvaluationData | None,
    *,
    seed: int,
) -> list[Measured]:
    """Everything that models were evaluated on: the recipe's own data, then its tasks.

    Args:
        plan: Jobs of the run.
        made: Finished artifacts by the name of the job.
        rows: The models of the report.
        evaluated: Losses by sequence of the recipe's evaluation data, by model.
        data: What these sequences are.
        seed: Of the resamples.

    Raises:
        QuantshipError: Two models were not given the same examples.
    """
    found = [] if data is None else [_of_data(rows, made, evaluated, data)]
    by_task: dict[str, list[Node]] = {}
    for node in plan.nodes:
        if node.stage == "task":
            by_task.setdefault(_task_name(node), []).append(node)
    found += [_of_task(name, nodes, made) for name, nodes in by_task.items()]
    return [evidence.measure(one, seed=seed) for one in found]


def compare(
    plan: Plan,
    measured: Sequence[Measured],
    rows: Sequence[ModelRow],
    recoveries: Sequence[Recovery],
) -> Evidence | None:
    """What the tasks say of the models in pairs; None where nothing was evaluated.

    Args:
        plan: Jobs of the run.
        measured: As ``measure`` returns it.
        rows: The models of the report.
        recoveries: What QAT is worth by the recipe's own data, which says which twin is the best.
    """
    if not measured:
        return None
    twins = {one.qat.name: one.ptq.name for one in recoveries}
    return evidence.build(
        measured,
        {task.scores.name: _pairs(plan, task, twins) for task in measured},
        {row.name: row.activation_arithmetic for row in rows},
    )


def job_name(task: str, model: str) -> str:
    """Name of the job that has evaluated a model on a task."""
    return f"{task} of {model}"


def model_scores(artifact: Artifact, metrics: Sequence[MetricFacts]) -> ModelScores:
    """What the job of a task has left of its model, example by example."""
    examples, facts = scores.read(artifact.path), artifact.facts
    return ModelScores(
        ids=[one.id for one in examples],
        weights=np.array([one.weight for one in examples], np.float64),
        sums={
            metric.name: np.array([one.values[metric.name] for one in examples], np.float64)
            for metric in metrics
        },
        values={metric.name: facts["metrics"][metric.name] for metric in metrics},
        words=[Words(one.prompt, one.expected, one.answer) for one in examples],
        digest=facts["digest"],
        runtime=facts["runtime"],
        seconds=facts["seconds"],
        extra=facts["extra"],
    )


def _pairs(plan: Plan, task: Measured, twins: Mapping[str, str]) -> list[Pair]:
    found = pairs(plan, task.scores.models, twins)
    jobs = [node for node in plan.nodes if node.stage == "task"]
    if not any("reference" in node.inputs for node in jobs if _task_name(node) == task.scores.name):
        return found
    # What was measured is a distance from the float model: there is no such number of its own to
    # compare with, nor a share of it to recover.
    return [replace(pair, reference=None) for pair in found if pair.why != "float"]


def _task_name(node: Node) -> str:
    """What the report calls the task of a job, whose name is ``<task> of <model>``."""
    return node.name.removesuffix(job_name("", node.inputs["model"]))


def _of_task(name: str, nodes: Sequence[Node], made: Mapping[str, Artifact]) -> TaskScores:
    facts = [made[node.name].facts for node in nodes]
    metrics = [MetricFacts(**about) for about in facts[0]["about"]]
    notes = dict.fromkeys(note for each in facts for note in each["notes"])
    models = {node.inputs["model"]: model_scores(made[node.name], metrics) for node in nodes}
    return together(name, facts[0]["task"], metrics, list(notes), models)


def _of_data(
    rows: Sequence[ModelRow],
    made: Mapping[str, Artifact],
    evaluated: Mapping[str, likelihood.Sequences],
    data: EvaluationData,
) -> TaskScores:
    """The recipe's own evaluation data as a task."""
    ids = [f"{DATA}[{place}]" for place in range(data.num_sequences)]
    models = {}
    for row in rows:
        if row.metrics is None:
            continue
        hits = likelihood.read_hits(made[f"evaluate {row.name}"].path)
        assert hits is not None
        models[row.name] = ModelScores(
            ids=ids,
            weights=evaluated[row.name].num_tokens.astype(np.float64),
            sums={
                PERPLEXITY.name: evaluated[row.name].nll_nats,
                ACCURACY.name: hits.astype(np.float64),
            },
            values={
                PERPLEXITY.name: row.metrics.perplexity,
                ACCURACY.name: row.metrics.token_accuracy,
            },
            words=[Words()] * len(ids),
            digest=data.digest,
            runtime=runtime(row),
            seconds=None,
            extra={},
        )
    return together(DATA, "perplexity", [PERPLEXITY, ACCURACY], [], models)
