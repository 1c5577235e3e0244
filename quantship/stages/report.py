"""Set all models of a run side by side: one row a model, from what the stages found out."""

from __future__ import annotations

import json
import math
import os
import platform
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from quantship import hardware, models
from quantship.artifact import Artifact
from quantship.data.digest import digest
from quantship.job import Node, Plan
from quantship.recipe.language import FinetuneStep, Recipe, TrainingOptions
from quantship.reporting import (
    arithmetic,
    evidence_text,
    fronts,
    layers,
    notes,
    quantization,
    ranking,
    recovery,
    routes,
    schema,
    search_schema,
    write,
)
from quantship.reporting.evidence import results as task_results
from quantship.reporting.lineage import line
from quantship.reporting.ranking_schema import Ranking
from quantship.reporting.recovery_schema import Recovery
from quantship.results import evidence, gates
from quantship.runtimes import built_for
from quantship.tasks import likelihood

FLOAT32_BYTES = 4


def build(
    recipe: Recipe, plan: Plan, made: Mapping[str, Artifact], root: Path, *, duration_s: float
) -> schema.Report:
    """Collect the report of a finished run.

    Args:
        recipe: The resolved recipe.
        plan: Its jobs.
        made: Finished artifacts by the name of the job.
        root: What paths in the report are relative to.
        duration_s: How long this run took.
    """
    rows = [_row(node, plan, made, root) for node in plan.nodes if node.leaves_model]
    evaluated = _evaluated(plan, made)
    evaluation_data = _evaluation_data(recipe, made, evaluated)
    recoveries = _recovery(plan, made, evaluated, recipe.seed)
    measured = evidence.measure(plan, made, rows, evaluated, evaluation_data, seed=recipe.seed)
    found = task_results(measured)
    rows = [row.model_copy(update={"tasks": found.get(row.name, {})}) for row in rows]
    report = schema.Report(
        quantship_version=hardware.versions()["quantship"],
        recipe=recipe.model_dump(mode="json"),
        name=recipe.name,
        created=datetime.now(UTC),
        duration_s=duration_s,
        environment=_environment(),
        data=dict(made["data"].facts),
        evaluation_data=evaluation_data,
        models=rows,
        training=[
            _curve(node, made[node.name].facts["training"])
            for node in plan.nodes
            if "training" in made[node.name].facts
        ],
        ranking=_ranking(rows, evaluated, recipe.seed),
        fronts=fronts.fronts(rows),
        recovery=recoveries,
        searches=search_schema.collect(plan, made),
        routes=routes.collect(plan, made),
        layers=layers.collect(plan, made),
        evidence=evidence.compare(plan, measured, rows, recoveries),
        notes=notes.collect(plan, made),
    )
    remarks = [*report.notes, *evidence_text.notes(report)]
    judged = gates.judge(recipe, report, measured)
    return report.model_copy(update={"notes": remarks, "gates": judged})


def save(report: schema.Report, plan: Plan, made: Mapping[str, Artifact], root: Path) -> Path:
    """Write the report and, beside it, a link to each model by its name in the recipe.

    Returns:
        The directory, ``<root>/runs/<recipe>``.
    """
    out = root / "runs" / report.name
    (out / "models").mkdir(parents=True, exist_ok=True)
    write.write(report, out)
    for link in (out / "models").iterdir():
        if link.is_symlink():  # whatever else is there is not this run's
            link.unlink()
    for node in plan.nodes:
        path = made[node.name].path
        if node.leaves_model and path.is_relative_to(root):
            (out / "models" / node.name).symlink_to(os.path.relpath(path, out / "models"))
    fingerprints = {node.name: node.fingerprint for node in plan.nodes}
    write.replace(out / "artifacts.json", json.dumps(fingerprints, indent=2) + "\n")
    return out


def _row(node: Node, plan: Plan, made: Mapping[str, Artifact], root: Path) -> schema.ModelRow:
    artifact = made[node.name]
    evaluation: Mapping[str, Any] = (
        made[f"evaluate {node.name}"].facts if f"evaluate {node.name}" in made else {}
    )
    speeds: Mapping[str, Any] = made["benchmark"].facts if "benchmark" in made else {}
    size = models.weight_bytes(artifact.path)
    relative = artifact.path.is_relative_to(root)
    return schema.ModelRow(
        name=node.name,
        step=node.name,
        kind=_kind(node, made),
        path=str(artifact.path.relative_to(root) if relative else artifact.path),
        scheme=node.scheme.name if node.scheme is not None else None,
        quantization=quantization.of_model(node, plan, made),
        method=_method(node, plan),
        float_source=line(plan, node)[-1].name,
        size_bytes=size,
        compression=_float32_bytes(node, plan, made) / size,
        metrics=evaluation.get("metrics"),
        benchmark=speeds.get(node.name),
        parity=_parity(node, artifact, evaluation),
        lowering=artifact.facts.get("lowering") if node.scheme is not None else None,
        activation_arithmetic=arithmetic.of_model(node, artifact),
        group=node.group,
        hardware_needs=artifact.facts.get("hardware_needs", []),
        **_advice(node, artifact),
    )


def _advice(node: Node, artifact: Artifact) -> dict[str, Any]:
    """What was known of an exported model before it ran."""
    facts = artifact.facts
    if node.scheme is None or "lowering_reason" not in facts:
        return {}
    built = built_for.BuiltFor(facts["lowering"], facts["target"], facts["signed_weights"])
    return {
        "lowering_reason": facts["lowering_reason"],
        "target": built.target,
        "warnings": facts["warnings"],
        "inexact": built_for.inexact(built, hardware.kind()),
    }


def _kind(
    node: Node, made: Mapping[str, Artifact]
) -> Literal["float", "torchao", "onnx", "openvino"]:
    """Form of a model's files."""
    if node.stage == "export":
        written: Literal["onnx", "openvino"] = made[node.name].facts["format"]
        return written
    return "float" if node.scheme is None else "torchao"


def _parity(node: Node, artifact: Artifact, evaluation: Mapping[str, Any]) -> schema.Parity | None:
    if "parity" in evaluation:
        return schema.Parity(reference=node.inputs["model"], **evaluation["parity"])
    if "parity" not in artifact.facts:
        return None
    facts = dict(artifact.facts["parity"])
    facts.pop("num_probe_tokens")
    return schema.Parity(reference=f"{node.name}, fake-quantized", **facts)


def _evaluated(plan: Plan, made: Mapping[str, Artifact]) -> dict[str, likelihood.Sequences]:
    """Losses by sequence of every model that was evaluated; all on the same sequences."""
    evaluated = {
        node.name: likelihood.read_sequences(made[f"evaluate {node.name}"].path)
        for node in plan.nodes
        if f"evaluate {node.name}" in made
    }
    counts = [one.num_tokens for one in evaluated.values()]
    assert all((one == counts[0]).all() for one in counts)
    return evaluated


def _evaluation_data(
    recipe: Recipe, made: Mapping[str, Artifact], evaluated: Mapping[str, likelihood.Sequences]
) -> schema.EvaluationData | None:
    if recipe.evaluation is None or not evaluated:
        return None
    num_tokens = next(iter(evaluated.values())).num_tokens
    return schema.EvaluationData(
        digest=digest(made["data"].path / "eval", recipe.evaluation.limit),
        num_sequences=len(num_tokens),
        num_tokens=int(num_tokens.sum()),
    )


def _ranking(
    rows: Sequence[schema.ModelRow], evaluated: Mapping[str, likelihood.Sequences], seed: int
) -> Ranking | None:
    contenders = ranking.contenders(rows)
    names = {one.name for one in contenders} | {one.source for one in contenders}
    nll_nats = {name: one.nll_nats for name, one in evaluated.items() if name in names}
    if not nll_nats:
        return None
    num_tokens = next(iter(evaluated.values())).num_tokens
    losses = ranking.resample(nll_nats, num_tokens, seed=seed)
    return ranking.rank(contenders, losses, by="lost")


def _recovery(
    plan: Plan,
    made: Mapping[str, Artifact],
    evaluated: Mapping[str, likelihood.Sequences],
    seed: int,
) -> list[Recovery]:
    branches = recovery.branches(plan)
    if not branches or not evaluated:
        return []
    return recovery.build(
        branches,
        made,
        {name: sequences.nll_nats for name, sequences in evaluated.items()},
        next(iter(evaluated.values())).num_tokens,
        {branch.training.name: training_method(branch.training) for branch in branches},
        seed=seed,
    )


def _method(node: Node, plan: Plan) -> str | None:
    trained = [one for one in line(plan, node) if one.stage == "qat"]
    return training_method(trained[-1]) if trained and node.scheme is not None else None


def training_method(training: Node) -> str:
    """What a QAT step does that a plain training cannot, in the words of its settings."""
    assert training.settings is not None
    step: TrainingOptions = dict(training.settings)["step"]
    chosen = []
    for key, field in type(step).model_fields.items():
        value = getattr(step, key)
        default = field.get_default(call_default_factory=True)
        if key in FinetuneStep.model_fields or key == "scheme" or value in (None, False, default):
            continue
        plain = isinstance(value, str | int | float) and value is not True
        chosen.append(f"{key} {value}" if plain else key)
    return ", ".join(chosen).replace("_", " ")


def _float32_bytes(node: Node, plan: Plan, made: Mapping[str, Artifact]) -> int:
    """Size of the float32 model in the same kind of file: measured, else from its parameters."""
    ancestor = line(plan, node)[-1]
    if node.stage == "export":
        for other in plan.nodes:
            if _kind(other, made) == _kind(node, made) and other.scheme is None:
                return models.weight_bytes(made[other.name].path)
    return models.num_parameters(made[ancestor.name].path) * FLOAT32_BYTES


def _curve(node: Node, facts: Mapping[str, Any]) -> schema.TrainingCurve:
    return schema.TrainingCurve(
        step=node.name,
        stage=node.stage,
        scheme=node.scheme.name if node.scheme is not None else None,
        points=[
            schema.TrainingPoint(
                step=point["step"],
                loss=point["loss"],
                learning_rate=point["learning_rate"],
                grad_norm=point["grad_norm"] if _finite(point["grad_norm"]) else None,
            )
            for point in facts["points"]
        ],
        seconds=facts["seconds"],
        tokens_per_s=facts["tokens_per_s"],
        resumed_from=facts["resumed_from"],
    )


def _finite(value: float | None) -> bool:
    return value is not None and math.isfinite(value)


def _environment() -> schema.Environment:
    return schema.Environment(
        cpu_model=hardware.cpu_model(),
        instruction_sets=list(hardware.instruction_sets()),
        num_cpus=hardware.num_cpus(),
        memory_bytes=hardware.memory_bytes(),
        gpu=hardware.gpu_name(),
        os=platform.platform(),
        python=platform.python_version(),
        versions=hardware.versions(),
    )
