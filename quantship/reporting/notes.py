"""What a reader of a report should know before trusting a number."""

from __future__ import annotations

from collections.abc import Mapping

from quantship.artifact import Artifact
from quantship.job import Plan
from quantship.reporting import recovery


def collect(plan: Plan, made: Mapping[str, Artifact]) -> list[str]:
    """The notes of a finished run."""
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
