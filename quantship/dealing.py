"""Which jobs of a plan several processes do next, and how: pure, and the same in all of them.

Processes share out jobs, not parts of jobs: a sweep's many models are made and evaluated side by
side, while one long evaluation is one process's. Training is the exception: all do it together.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from quantship.job import OUTSIDE, Node

JOINT = frozenset({"finetune", "qat"})
"""Stages that all processes do together."""


@dataclass(frozen=True)
class Round:
    """Jobs that do not wait for each other.

    Args:
        kind: ``dealt``: each is one process's; ``joint``: all processes do it together; ``first``:
            the first process does it while the others wait.
        jobs: One job, where not dealt.
    """

    kind: Literal["dealt", "joint", "first"]
    jobs: tuple[Node, ...]


def ready(nodes: Iterable[Node], made: Collection[str]) -> tuple[Node, ...]:
    """The jobs that can be done now, in the order of the plan.

    Of jobs that make the very same directory there is one: the others find it afterwards.

    Args:
        nodes: All jobs of a plan.
        made: Names of those that are made, the models from outside among them.
    """
    found: dict[tuple[str, str], Node] = {}
    for node in nodes:
        if node.name in made or node.stage == OUTSIDE:
            continue
        if all(name in made for name in node.inputs.values()):
            found.setdefault((node.stage, node.fingerprint), node)
    return tuple(found.values())


def next_round(jobs: Sequence[Node]) -> Round:
    """What to do of the jobs that can be done now.

    Training comes after all that can be shared out, and what is timed after that: it wants the
    machine for itself.

    Args:
        jobs: As ``ready`` returns them; at least one.
    """
    shared = tuple(job for job in jobs if job.stage not in JOINT and not _is_timed(job))
    joint = tuple(job for job in jobs if job.stage in JOINT)
    if shared:
        return Round("dealt" if len(shared) > 1 else "first", shared)
    return Round("joint", joint[:1]) if joint else Round("first", tuple(jobs[:1]))


def differing(first: Iterable[Node], here: Iterable[Node]) -> list[str]:
    """Names of the jobs that are not the same in two processes' plans of one recipe.

    What is timed depends on the machine, and with it what follows from it: that may differ, and is
    done as the first process plans it.

    Args:
        first: The first process's jobs, in the order of its plan.
        here: Another one's.
    """
    mine = {node.name: node for node in here}
    found, timed = [], set()
    for node in first:
        if _is_timed(node) or any(name in timed for name in node.inputs.values()):
            timed.add(node.name)
        elif node.name not in mine or mine[node.name].fingerprint != node.fingerprint:
            found.append(node.name)
    return found


def _is_timed(job: Node) -> bool:
    """Whether its settings name the machine, as those of a benchmark do."""
    return bool(getattr(job.settings, "machine", None))
