"""Options of a step that say nothing beside its other options, or beside its scheme."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from quantship.frozen import Frozen
from quantship.quant.scheme import Scheme
from quantship.recipe.findings import Finding
from quantship.recipe.language import QatStep, QuantizeStep, Recipe


def find_problems(recipe: Recipe, table: Mapping[str, Scheme]) -> Iterator[Finding]:
    """Options that would be read by nobody, which is never what their author meant.

    Args:
        recipe: With the names, inputs and schemes of its steps filled in.
        table: Schemes by their names.
    """
    for index, step in enumerate(recipe.steps):
        if isinstance(step, QatStep | QuantizeStep):
            key = ("steps", index)
            yield from _range_findings(key, step)
            yield from _calibration_findings(key, step, table.get(step.scheme or ""))


def _range_findings(key: tuple[str, int], step: QatStep | QuantizeStep) -> Iterator[Finding]:
    if isinstance(step, QatStep) and step.scales == "current" and step.range != "minmax":
        message = f"range {step.range} goes with fixed or learned scales, and these are current"
        remedy = "Set `scales: fixed` or `scales: learned`, or leave range out."
        yield Finding((*key, "range"), message, remedy)
    if isinstance(step, QatStep) and step.scales == "learned" and step.range == "outermost":
        message = (
            "range outermost finds scales of either sign, and a learned scale keeps above zero"
        )
        yield Finding((*key, "range"), message, "Set `scales: fixed`, or range minmax or mse.")
    if step.range != "percentile" and _is_changed(step, "percentile"):
        message = f"percentile says nothing beside range {step.range}"
        yield Finding((*key, "percentile"), message, "Set `range: percentile`, or leave it out.")


def _calibration_findings(
    key: tuple[str, int], step: QatStep | QuantizeStep, scheme: Scheme | None
) -> Iterator[Finding]:
    key_here, calibration = (*key, "calibration"), step.calibration
    if scheme is not None and not scheme.is_static and _is_changed(step, "calibration"):
        message = (
            f"calibration finds static input ranges, and scheme '{scheme.name}' has none: it "
            f"{'takes them from each input' if scheme.activation else 'leaves inputs in float'}"
        )
        remedy = "Leave calibration out, or choose a scheme with static ranges, as w8a8-static."
        yield Finding(key_here, message, remedy)
    elif calibration.range != "percentile" and _is_changed(calibration, "percentile"):
        message = f"percentile says nothing beside range {calibration.range}"
        remedy = "Set `range: percentile`, or leave it out."
        yield Finding((*key_here, "percentile"), message, remedy)


def _is_changed(options: Frozen, name: str) -> bool:
    """Whether an option has another value than where nothing is given."""
    field = type(options).model_fields[name]
    return bool(getattr(options, name) != field.get_default(call_default_factory=True))
