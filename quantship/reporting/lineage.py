"""What the models of a run come from."""

from __future__ import annotations

from quantship.job import Node, Plan


def line(plan: Plan, node: Node) -> list[Node]:
    """A model and what it came from, up to the float model that its weights come from.

    What a training under fake quantization leaves in float is a step on the way.
    """
    found = [node]
    while not _is_float_checkpoint(found[-1]):
        found.append(plan[found[-1].inputs["model"]])
    return found


def _is_float_checkpoint(node: Node) -> bool:
    return node.scheme is None and node.group != "qat" and node.stage != "export"
