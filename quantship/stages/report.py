"""Set all models of a run side by side: one row a model, from what the stages found out."""

from __future__ import annotations

import json
import math
import os
import platform
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from quantship import hardware, models
from quantship.artifact import Artifact
from quantship.job import Node, Plan
from quantship.quant.scheme import ActivationFormat
from quantship.recipe.language import FinetuneStep, Recipe, TrainingOptions
from quantship.reporting import recovery, schema, write
from quantship.reporting.recovery_schema import Recovery
from quantship.reporting.routes import Route
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
    return schema.Report(
        quantship_version=hardware.versions()["quantship"],
        recipe=recipe.model_dump(mode="json"),
        name=recipe.name,
        created=datetime.now(UTC),
        duration_s=duration_s,
        environment=_environment(),
        data=dict(made["data"].facts),
        models=[_row(node, plan, made, root) for node in plan.nodes if node.leaves_model],
        training=[
            _curve(node, made[node.name].facts["training"])
            for node in plan.nodes
            if "training" in made[node.name].facts
        ],
        recovery=_recovery(plan, made, recipe.seed),
        routes=_routes(plan, made),
        notes=_notes(plan, made),
    )


def save(report: schema.Report, plan: Plan, made: Mapping[str, Artifact], root: Path) -> Path:
    """Write the report and, beside it, a link to each model by its name in the recipe.

    Returns:
        The directory, ``<root>/runs/<recipe>``.
    """
    out = root / "runs" / report.name
    (out / "models").mkdir(parents=True, exist_ok=True)
    write.write(report, out)
    for link in (out / "models").iterdir():
        link.unlink()
    for node in plan.nodes:
        path = made[node.name].path
        if node.leaves_model and path.is_relative_to(root):
            (out / "models" / node.name).symlink_to(os.path.relpath(path, out / "models"))
    fingerprints = {node.name: node.fingerprint for node in plan.nodes}
    (out / "artifacts.json").write_text(json.dumps(fingerprints, indent=2) + "\n")
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
        float_source=recovery.line(plan, node)[-1].name,
        size_bytes=size,
        compression=_float32_bytes(node, plan, made) / size,
        metrics=evaluation.get("metrics"),
        benchmark=speeds.get(node.name),
        parity=_parity(node, artifact, evaluation),
        lowering=artifact.facts.get("lowering") if node.scheme is not None else None,
        activation_arithmetic=_activation_arithmetic(node, artifact),
        group=node.group,
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


def _routes(plan: Plan, made: Mapping[str, Artifact]) -> list[Route]:
    routes: list[Route] = []
    for node in plan.nodes:
        found = made[node.name].facts
        if "handoff" in found:
            routes.append(
                Route(
                    model=node.name,
                    route="two-step",
                    reference=node.inputs["model"],
                    **found["handoff"],
                )
            )
        if node.stage == "online":
            model = node.inputs["checkpoint"]
            perplexity = found["metrics"]["perplexity"]
            routes.append(
                Route(
                    model=model,
                    route="online",
                    reference=model,
                    perplexity=perplexity,
                    **found["codes"],
                )
            )
    return routes


def _activation_arithmetic(node: Node, artifact: Artifact) -> str | None:
    if node.scheme is None:
        return None
    if node.stage == "export":
        arithmetic: str = artifact.facts["activation_arithmetic"]
        return arithmetic
    if node.scheme.activation is None:
        return "float32"
    return describe_activation(node.scheme.activation)


def describe_activation(activation: ActivationFormat) -> str:
    """How torchao computes with inputs of this format, in words."""
    symmetry, numbers = (
        ("symmetric", "one scale")
        if activation.symmetric
        else ("asymmetric", "one scale and zero point")
    )
    shared = "token" if activation.granularity == "per_token" else "tensor"
    fixed = ", fixed by calibration" if activation.ranges == "static" else ""
    # torchao multiplies integers only where it has an integer kernel for both sides.
    dequantized = shared == "token" and not activation.symmetric
    how = " (dequantized)" if dequantized else ""
    return f"int{activation.bits}, {symmetry}, {numbers} a {shared}{fixed}{how}"


def _recovery(plan: Plan, made: Mapping[str, Artifact], seed: int) -> list[Recovery]:
    branches = recovery.branches(plan)
    evaluated = {
        node.name: likelihood.read_sequences(made[f"evaluate {node.name}"].path)
        for node in plan.nodes
        if branches and f"evaluate {node.name}" in made
    }
    if not evaluated:
        return []
    num_tokens = next(iter(evaluated.values())).num_tokens
    assert all((one.num_tokens == num_tokens).all() for one in evaluated.values())
    return recovery.build(
        branches,
        made,
        {name: sequences.nll_nats for name, sequences in evaluated.items()},
        num_tokens,
        {branch.training.name: training_method(branch.training) for branch in branches},
        seed=seed,
    )


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
    ancestor = recovery.line(plan, node)[-1]
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


def _notes(plan: Plan, made: Mapping[str, Artifact]) -> list[str]:
    notes = _unknown_recoveries(plan, made)
    for split in ("train", "eval"):
        for source in made["data"].facts.get(split, {}).get("sources", []):
            if source["over_length"]:
                notes.append(
                    f"{source['over_length']} of {source['records']} records of "
                    f"{source['adapter']} ({split}) are longer than max_length and were left out."
                )
    if any(node.stage == "export" and node.scheme is not None for node in plan.nodes):
        notes.append(
            "Codes and scales of every quantized ONNX model were read back from its file and "
            "compared with the checkpoint's."
        )
    if "samples" in made["data"].facts.get("eval", {}):
        notes.append(
            "The models classify samples, and each counts as one token: token accuracy is the "
            "share of samples whose class was found."
        )
    if "benchmark" in made:
        notes.append(
            "Of a prompt, PyTorch computes the last position's logits, as generate() does, and so "
            "do ONNX graphs with an input num_logits_to_keep; others compute all positions'."
        )
    return notes


def _unknown_recoveries(plan: Plan, made: Mapping[str, Artifact]) -> list[str]:
    if not any(node.stage == "evaluate" for node in plan.nodes):
        return []
    return [
        f"What {branch.qat.name} recovered is not known: {branch.reference.name} was not evaluated."
        for branch in recovery.branches(plan)
        if f"evaluate {branch.reference.name}" not in made
    ]
