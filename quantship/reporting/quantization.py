"""How the integers of a run's models were found: a quantize step's options and what it noted."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from quantship.artifact import Artifact
from quantship.frozen import Frozen
from quantship.job import Node, Plan
from quantship.reporting.lineage import line
from quantship.reporting.ranking_schema import CalibrationUsed, Quantization

IDENTITY = {"name", "input", "stage", "scheme"}
NO_MATTER = {*IDENTITY, "packed"}
"""What does not change the integers."""
SHOWN_APART = {"sequences", "seed"}
"""Options of the calibration that stand beside the data it used."""


def of_model(node: Node, plan: Plan, made: Mapping[str, Artifact]) -> Quantization | None:
    """How the integers of a model, or of the checkpoint it was exported from, were found.

    None for a float model, and for one whose integers are those that training led to.
    """
    steps = [one for one in line(plan, node) if one.stage == "quantize"]
    if node.scheme is None or not steps:
        return None
    facts = made[steps[0].name].facts
    step = options(steps[0])
    return Quantization(
        algorithm=_kind(step),
        words=words(step),
        settings=_settings(step),
        plain=is_plain(step),
        calibration=_calibration(step, facts),
        seconds=facts.get("seconds"),
        peak_rss_bytes=facts.get("peak_rss_bytes"),
        blocks_resumed=_count(facts.get("blocks_resumed")),
        bias_corrected=_count(facts.get("bias_corrected")),
        remarks=list(facts.get("notes", ())),
    )


def options(quantize: Node) -> Frozen:
    """The options of a quantize step, as the recipe gives them."""
    assert quantize.settings is not None
    step: Frozen = dict(quantize.settings)["step"]
    return step


def words(step: Frozen) -> str:
    """The algorithm and all options that are not the defaults, in words."""
    algorithm: Frozen = dict(step)["algorithm"]
    own = [*_changed(algorithm, skip={"kind"}), *_changed(step, skip={*NO_MATTER, "algorithm"})]
    return ", ".join([_kind(step), *own])


def is_plain(step: Frozen) -> bool:
    """Whether it rounds to nearest, on the grids that a step has by default."""
    return words(step) == "rtn"


def _kind(step: Frozen) -> str:
    kind: str = dict(step)["algorithm"].kind
    return kind


def _settings(step: Frozen) -> dict[str, Any]:
    return {
        key: value for key, value in step.model_dump(mode="json").items() if key not in NO_MATTER
    }


def _changed(model: Frozen, *, skip: set[str]) -> Iterator[str]:
    for key, field in type(model).model_fields.items():
        value = getattr(model, key)
        if key in skip or value == field.get_default(call_default_factory=True):
            continue
        name = key.replace("_", " ")
        if isinstance(value, Frozen):
            yield from (f"{name} {text}" for text in _changed(value, skip=SHOWN_APART))
        elif isinstance(value, bool):
            yield name if value else f"no {name}"
        else:
            yield f"{name} {value}"


def _calibration(step: Frozen, facts: Mapping[str, Any]) -> CalibrationUsed | None:
    used = facts.get("calibration_sequences")
    if not used:
        return None
    seed = getattr(dict(step)["calibration"], "seed", None)
    return CalibrationUsed(sequences=used, tokens=facts.get("calibration_tokens"), seed=seed)


def _count(value: Any) -> int | None:
    return len(value) if isinstance(value, list) else value
