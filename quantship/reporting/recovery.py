"""Which models of a run tell what QAT is worth, and what they tell.

A QAT model is set beside its PTQ twin (the same scheme, from the same float model), beside that
float model, and beside a control: the same float model trained on without quantization. Against
the control, nothing of the share is due to more training.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quantship.artifact import Artifact
from quantship.job import Node, Plan
from quantship.reporting import bootstrap, quantization
from quantship.reporting.bootstrap import Mean
from quantship.reporting.lineage import line
from quantship.reporting.recovery_schema import (
    Control,
    ModelLoss,
    Recovery,
    ShareRecovered,
    TrainingAmount,
)

NO_MATTER = {
    *("name", "input", "stage", "save_steps", "logging_steps", "gradient_checkpointing"),
    *("epochs", "max_steps"),  # the steps done are compared instead
}


@dataclass(frozen=True)
class Branch:
    """One QAT model and what it is to be held against.

    Args:
        qat: The quantized model that quantization-aware training led to.
        training: The step that trained it.
        reference: The float model that its training started from.
        ptq: Quantized models of the same scheme, made from ``reference`` without training.
        controls: Trainings of ``reference`` in float.
    """

    qat: Node
    training: Node
    reference: Node
    ptq: tuple[Node, ...]
    controls: tuple[Node, ...]


def branches(plan: Plan) -> list[Branch]:
    """Every QAT model that has a PTQ twin; checkpoints only, as an export has the same codes."""
    quantized = [
        node
        for node in plan.nodes
        if node.leaves_model and node.scheme is not None and node.stage != "export"
    ]
    found = []
    for node in quantized:
        steps = line(plan, node)
        trained = [one for one in steps[:-1] if one.group == "qat"]
        if not trained:
            continue
        reference = steps[-1]
        ptq = tuple(
            other
            for other in quantized
            if other.scheme == node.scheme
            and (others := line(plan, other))[-1] is reference
            and not any(one.group == "qat" for one in others)
        )
        controls = tuple(
            other
            for other in plan.nodes
            if other.stage == "finetune"
            and other.stage != "export"
            and other.inputs.get("model") == reference.name
        )
        if ptq:
            found.append(Branch(node, trained[-1], reference, ptq, controls))
    return found


def build(
    found: list[Branch],
    made: Mapping[str, Artifact],
    nll_nats: Mapping[str, NDArray[np.float64]],
    num_tokens: NDArray[np.int64],
    methods: Mapping[str, str],
    *,
    seed: int,
) -> list[Recovery]:
    """What the evaluated ones of these branches tell.

    Args:
        found: As ``branches`` returns them.
        made: Finished artifacts by the name of the job.
        nll_nats: ``[sequences]`` for every model that was evaluated, by its name.
        num_tokens: ``[sequences]``: tokens that were predicted in each.
        methods: What a training did beyond plain training, by the name of its step.
        seed: Seed of the resamples.
    """
    names = {
        node.name
        for branch in found
        for node in (branch.qat, branch.reference, *branch.ptq, *branch.controls)
        if node.name in nll_nats
    }
    losses = bootstrap.means(
        {name: nll for name, nll in nll_nats.items() if name in names}, num_tokens, seed=seed
    )
    return [
        _entry(branch, made, losses, num_tokens, methods)
        for branch in found
        if {branch.qat.name, branch.reference.name} <= names
    ]


def _entry(
    branch: Branch,
    made: Mapping[str, Artifact],
    losses: Mapping[str, Mean],
    num_tokens: NDArray[np.int64],
    methods: Mapping[str, str],
) -> Recovery:
    assert branch.qat.scheme is not None
    best = min(branch.ptq, key=lambda node: losses[node.name].value)
    enough = len(num_tokens) >= bootstrap.FEWEST_EXAMPLES
    qat, ptq, reference = branch.qat.name, best.name, branch.reference.name
    compared = _Compared(losses, ptq, qat, len(num_tokens))
    nearest = _nearest(branch)
    over = None if nearest in (None, best) else nearest
    return Recovery(
        scheme=branch.qat.scheme.name,
        method=methods.get(branch.training.name, ""),
        qat=_model(qat, losses),
        ptq=_model(ptq, losses),
        ptq_algorithm=quantization.words(quantization.options(best)),
        ptq_twins=[node.name for node in branch.ptq],
        ptq_best_in=_best_in(branch, ptq, losses) if enough else None,
        gained=bootstrap.difference(losses[ptq], losses[qat]) if enough else None,
        recovered=compared.against(reference),
        nearest=_model(over.name, losses) if over is not None else None,
        of_nearest=replace(compared, ptq=over.name).against(reference) if over else None,
        control=_control(branch, made, compared),
        confidence=bootstrap.CONFIDENCE,
        num_resamples=bootstrap.NUM_RESAMPLES,
        num_sequences=len(num_tokens),
        num_tokens=int(num_tokens.sum()),
    )


def _nearest(branch: Branch) -> Node | None:
    """The twin that was rounded to nearest by defaults; of several the first."""
    plain = (node for node in branch.ptq if quantization.is_plain(quantization.options(node)))
    return next(plain, None)


def _best_in(branch: Branch, ptq: str, losses: Mapping[str, Mean]) -> float | None:
    """Share of the resamples in which this twin is the best one; None where it is the only one."""
    if len(branch.ptq) < 2:
        return None
    least = np.min([losses[node.name].resampled for node in branch.ptq], axis=0)
    return float(np.mean(losses[ptq].resampled <= least))


@dataclass(frozen=True)
class _Compared:
    """A QAT model and its PTQ twin, to be held against float models."""

    losses: Mapping[str, Mean]
    ptq: str
    qat: str
    num_sequences: int

    def against(self, reference: str) -> ShareRecovered:
        lost = share = reason = None
        if self.num_sequences < bootstrap.FEWEST_EXAMPLES:
            reason = f"{self.num_sequences} evaluated sequences are too few to tell"
        else:
            ptq, qat = self.losses[self.ptq], self.losses[self.qat]
            lost = bootstrap.difference(ptq, self.losses[reference])
            share = bootstrap.share_recovered(self.losses[reference], ptq, qat)
            if share is None:
                reason = f"{self.ptq} lost nothing measurable against {reference}"
        return ShareRecovered(
            reference=_model(reference, self.losses), lost=lost, share=share, undefined=reason
        )


def _model(name: str, losses: Mapping[str, Mean]) -> ModelLoss:
    loss = losses[name].value
    return ModelLoss(name=name, mean_loss=loss, perplexity=float(np.exp(loss)))


def _control(branch: Branch, made: Mapping[str, Artifact], compared: _Compared) -> Control | None:
    """The control that was trained most like QAT, as far as there is one."""
    controls = []
    for node in branch.controls:
        if node.name not in compared.losses:
            continue
        one, other = (_training(each, made[each.name]) for each in (node, branch.training))
        same_order = _settings(node)["seed"] == _settings(branch.training)["seed"]
        controls.append(
            Control(
                recovered=compared.against(node.name),
                training=one,
                qat_training=other,
                equal_data=same_order and one == other,
                differences=_differences(node, branch.training),
            )
        )
    return min(
        controls,
        key=lambda one: (
            not one.equal_data,
            abs(one.training.num_steps - one.qat_training.num_steps),
            len(one.differences),
        ),
        default=None,
    )


def _training(node: Node, artifact: Artifact) -> TrainingAmount:
    facts, step = artifact.facts["training"], _settings(node)["step"]
    return TrainingAmount(
        num_steps=facts["num_steps"],
        sequences_per_step=step["batch_size"] * step["gradient_accumulation"],
        num_tokens=facts.get("num_tokens"),
    )


def _differences(control: Node, training: Node) -> list[str]:
    """Settings that two trainings share and differ in."""
    ours, theirs = _settings(control)["step"], _settings(training)["step"]
    return [
        f"{key} is {ours[key]} in {control.name} and {theirs[key]} in {training.name}"
        for key in ours
        if key in theirs and key not in NO_MATTER and ours[key] != theirs[key]
    ]


def _settings(node: Node) -> dict[str, Any]:
    assert node.settings is not None
    return node.settings.model_dump(mode="json")
