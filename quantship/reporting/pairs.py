"""Which models of a run are compared with each other on a task."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from quantship.job import Node, Plan
from quantship.reporting import recovery
from quantship.reporting.lineage import line
from quantship.reporting.recovery import Branch


@dataclass(frozen=True)
class Pair:
    """Two models to compare.

    Args:
        model: Name of the one.
        over: Name of the other.
        why: What the other is to the one: its float model, its PTQ twin, its checkpoint.
        reference: For a twin: the float model that both come from, where it was evaluated.
    """

    model: str
    over: str
    why: Literal["float", "ptq", "source"]
    reference: str | None = None


def pairs(plan: Plan, evaluated: Collection[str], twins: Mapping[str, str]) -> list[Pair]:
    """The comparisons that the models evaluated on a task allow, in the order of the plan.

    Args:
        plan: The jobs of the run.
        evaluated: Names of the models that were evaluated on the task.
        twins: Best PTQ twin by the name of a QAT checkpoint, where it is known.
    """
    found = []
    branches = recovery.branches(plan)
    for node in plan.nodes:
        if not node.leaves_model or node.name not in evaluated:
            continue
        reference = None if node.scheme is None else float_model(plan, node, evaluated)
        if reference is not None:
            found.append(Pair(node.name, reference, "float"))
        twin = next(_twins(plan, branches, node, evaluated, twins), None)
        if twin is not None:
            found.append(Pair(node.name, twin, "ptq", reference))
        if node.stage == "export" and node.inputs["model"] in evaluated:
            found.append(Pair(node.name, node.inputs["model"], "source"))
    return found


def float_model(plan: Plan, node: Node, evaluated: Collection[str]) -> str | None:
    """The float model of a quantized one: as a checkpoint if that was evaluated, else exported."""
    source = line(plan, node)[-1]
    if source.name in evaluated:
        return source.name
    exported = [one for one in _exports(plan, source) if one.name in evaluated]
    alike = [one for one in exported if _format(one) == _format(node)]
    return next((one.name for one in [*alike, *exported]), None)


def _twins(
    plan: Plan,
    branches: Sequence[Branch],
    node: Node,
    evaluated: Collection[str],
    best: Mapping[str, str],
) -> Iterator[str]:
    """PTQ models in the form of a QAT model, the best one first."""
    checkpoint = plan[node.inputs["model"]] if node.stage == "export" else node
    for branch in branches:
        if branch.qat is not checkpoint:
            continue
        first = best.get(branch.qat.name)
        for twin in sorted(branch.ptq, key=lambda one: one.name != first):
            alike = (
                [one for one in _exports(plan, twin) if one.settings == node.settings]
                if node.stage == "export"
                else [twin]
            )
            yield from (one.name for one in alike if one.name in evaluated)


def _exports(plan: Plan, source: Node) -> list[Node]:
    return [
        node
        for node in plan.nodes
        if node.stage == "export" and node.inputs["model"] == source.name
    ]


def _format(node: Node) -> str | None:
    return getattr(node.settings, "format", None) if node.stage == "export" else None
