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
    for source, shared in zip(
        made["data"].facts.get("eval", {}).get("sources", []),
        made["data"].facts.get("overlap", []),
        strict=False,  # nothing is trained on: no overlap was counted
    ):
        if shared:
            notes.append(
                f"{shared} of the {source['records']} records of {source['adapter']} (eval) are "
                "trained on as well."
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
    if "texts" in made["data"].facts.get("eval", {}):
        notes.extend(_of_texts(made))
    elif "benchmark" in made:
        notes.append(
            "Of a prompt, PyTorch computes the last position's logits, as generate() does, and so "
            "do ONNX graphs with an input num_logits_to_keep; others compute all positions'."
        )
    return notes


def _of_texts(made: Mapping[str, Artifact]) -> list[str]:
    """How to read the figures of models that tell the classes of texts."""
    notes = [
        "The models tell the classes of texts, and each text counts as one token: token accuracy "
        "is the share of texts whose class was found."
    ]
    for source in made["data"].facts["eval"]["sources"]:
        if source["cut"]:
            notes.append(
                f"{source['cut']} of {source['records']} records of {source['adapter']} (eval) are "
                "longer than max_length: models read their beginning."
            )
    if "benchmark" in made:
        notes.append(
            "A benchmark's pass reads batch_size texts of prompt_tokens tokens: prefill is in "
            "tokens a second, decode in texts a second, and the latency is that of a pass."
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
