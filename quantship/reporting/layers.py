"""Collect what is known of single layers: rounding errors, inputs seen, ranges kept.

Nothing of a model's size is read: errors are facts of the steps that rounded, and of a checkpoint
only the scales of its static ranges.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from quantship.artifact import Artifact
from quantship.job import Node, Plan
from quantship.reporting.layers_schema import (
    HeldRange,
    HeldRanges,
    Layers,
    RoundingErrors,
    SeenInput,
    SeenInputs,
)

if TYPE_CHECKING:
    from quantship.quant.statistics import InputStatistics

INNER_SHARE = 0.999
STATISTICS = "statistics"
"""Stage that looks at inputs, and the role of what it found."""
CHECKPOINTS = ("quantize", "qat")
"""Stages that leave checkpoints."""


def collect(plan: Plan, made: Mapping[str, Artifact]) -> Layers | None:
    """What is known of the layers of a finished run; None where nothing is.

    Args:
        plan: Its jobs.
        made: Finished artifacts by the name of the job.
    """
    models = [one for one in plan.nodes if one.stage in CHECKPOINTS and one.scheme is not None]
    errors = [
        RoundingErrors(model=node.name, layers=found)
        for node in models
        if (found := made[node.name].facts.get("rounding_errors"))
    ]
    static = [node for node in models if node.scheme is not None and node.scheme.is_static]
    looks = [
        node
        for node in plan.nodes
        if node.stage == STATISTICS and any(node.name in one.inputs.values() for one in static)
    ]
    places = {node.name: place for place, node in enumerate(looks)}
    ranges = [
        HeldRanges(model=node.name, seen=places.get(node.inputs.get(STATISTICS, "")), layers=held)
        for node in static
        if (held := dict(_held(made[node.name].path)))
    ]
    if not errors and not ranges:
        return None
    return Layers(
        errors=errors, seen=[_seen(node, made[node.name]) for node in looks], ranges=ranges
    )


def _seen(node: Node, artifact: Artifact) -> SeenInputs:
    from quantship.quant import statistics_file

    found = statistics_file.load(artifact.path / statistics_file.FILE)
    return SeenInputs(
        model=node.inputs["model"],
        num_sequences=artifact.facts["sequences"],
        num_tokens=artifact.facts["tokens"],
        inner_share=INNER_SHARE,
        layers={name: _input(one) for name, one in found.items()},
    )


def _input(seen: InputStatistics) -> SeenInput:
    assert seen.lowest is not None
    assert seen.highest is not None
    inner = None if seen.histogram is None else seen.histogram.percentile(100 * INNER_SHARE)
    return SeenInput(
        lowest=_short(seen.lowest),
        highest=_short(seen.highest),
        inner_low=None if inner is None else _short(inner[0]),
        inner_high=None if inner is None else _short(inner[1]),
    )


def _held(checkpoint: Path) -> Iterator[tuple[str, HeldRange]]:
    """Layers of a checkpoint that have a static range, and the range."""
    from safetensors import safe_open

    from quantship.quant.checkpoint import WEIGHTS, tensor_names
    from quantship.quant.numerics import code_range

    file = checkpoint / WEIGHTS
    if not file.exists():
        return
    with safe_open(file, framework="pt") as opened:
        metadata, present = opened.metadata() or {}, set(opened.keys())
        for name in tensor_names(metadata):
            stem = f"{name.removesuffix('weight')}_weight_act_quant"
            if f"{stem}_scale" not in present or json.loads(metadata[name])["_type"] == "Tensor":
                continue
            scale = float(opened.get_tensor(f"{stem}_scale"))
            zeros = f"{stem}_zero_point"
            zero = float(opened.get_tensor(zeros)) if zeros in present else 0.0
            low, high = (_short(scale * (code - zero)) for code in code_range(8))
            yield name.removesuffix(".weight"), HeldRange(low=low, high=high)


def _short(number: object) -> float:
    """Six digits, which is more than a plot shows."""
    return float(f"{float(number):.6g}")  # type: ignore[arg-type]
