"""Options of a step that say nothing beside its other options, or beside its scheme."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from quantship.algorithms import gptq
from quantship.algorithms.table import ALGORITHMS
from quantship.frozen import Frozen
from quantship.quant.scheme import Scheme
from quantship.recipe.findings import Finding
from quantship.recipe.language import QatStep, QuantizeStep, Recipe

_STATIC = "choose a scheme with static ranges, as w8a8-static"


def find_problems(recipe: Recipe, table: Mapping[str, Scheme]) -> Iterator[Finding]:
    """Algorithms that cannot make a scheme, and options that would be read by nobody.

    Args:
        recipe: With the names, inputs and schemes of its steps filled in.
        table: Schemes by their names.
    """
    for index, step in enumerate(recipe.steps):
        if isinstance(step, QatStep | QuantizeStep):
            key, scheme = ("steps", index), table.get(step.scheme or "")
            yield from _range_findings(key, step)
            if scheme is not None:
                yield from _calibration_findings((*key, "calibration"), step, scheme)
            if scheme is not None and isinstance(step, QuantizeStep):
                yield from _algorithm_findings(key, step, scheme)


def needs_data(step: QuantizeStep, scheme: Scheme) -> bool:
    """Whether quantizing so looks at training data."""
    algorithm = ALGORITHMS[step.algorithm.kind]
    return scheme.is_static or algorithm.NEEDS_DATA or step.bias_correction


def _range_findings(key: tuple[str, int], step: QatStep | QuantizeStep) -> Iterator[Finding]:
    if isinstance(step, QatStep) and step.scales == "current" and step.range != "minmax":
        message = f"range {step.range} goes with fixed or learned scales, and these are current"
        remedy = "Set `scales: fixed` or `scales: learned`, or leave range out."
        yield Finding((*key, "range"), message, remedy, unread=True)
    if isinstance(step, QatStep) and step.scales == "learned" and step.range == "outermost":
        message = (
            "range outermost finds scales of either sign, and a learned scale keeps above zero"
        )
        yield Finding((*key, "range"), message, "Set `scales: fixed`, or range minmax or mse.")
    if step.range != "percentile" and _is_changed(step, "percentile"):
        message = f"percentile says nothing beside range {step.range}"
        remedy = "Set `range: percentile`, or leave it out."
        yield Finding((*key, "percentile"), message, remedy, unread=True)


def _algorithm_findings(
    key: tuple[str, int], step: QuantizeStep, scheme: Scheme
) -> Iterator[Finding]:
    kind = step.algorithm.kind
    reason = ALGORITHMS[kind].reject(scheme, step.algorithm)
    if reason is not None:
        message = f"{kind} cannot quantize to scheme '{scheme.name}': {reason}"
        remedy = "Choose another algorithm for this scheme, in a step of its own in a sweep."
        yield Finding((*key, "algorithm"), message, remedy)
    ends_in_float = scheme.embedding is None and scheme.head_format is None
    searches = isinstance(step.algorithm, gptq.Options) and step.algorithm.grid == "searched"
    if searches and ends_in_float and _is_changed(step, "range"):
        message = (
            f"range {step.range} says nothing: gptq searches for its grids, and scheme "
            f"'{scheme.name}' leaves embedding and head in float"
        )
        remedy = "Set `algorithm: {kind: gptq, grid: range}`, or leave range out."
        yield Finding((*key, "range"), message, remedy, unread=True)


def _calibration_findings(
    key: tuple[str, int, str], step: QatStep | QuantizeStep, scheme: Scheme
) -> Iterator[Finding]:
    calibration = step.calibration
    has_none = (
        f"scheme '{scheme.name}' has none: it "
        f"{'takes them from each input' if scheme.activation else 'leaves inputs in float'}"
    )
    if not scheme.is_static and not (isinstance(step, QuantizeStep) and needs_data(step, scheme)):
        if not _is_changed(step, "calibration"):
            return
        message = f"calibration finds static input ranges, and {has_none}"
        remedy = f"Leave calibration out, or {_STATIC}."
        if isinstance(step, QuantizeStep):
            message += f"; nor does algorithm {step.algorithm.kind} look at data"
            remedy = f"Leave calibration out, choose an algorithm that needs it, or {_STATIC}."
        yield Finding(key, message, remedy, unread=True)
    elif not scheme.is_static and _is_changed(calibration, "range"):
        message = f"calibration.range is how static input ranges are found, and {has_none}"
        yield Finding((*key, "range"), message, f"Leave it out, or {_STATIC}.", unread=True)
    elif calibration.range != "percentile" and _is_changed(calibration, "percentile"):
        message = f"percentile says nothing beside range {calibration.range}"
        remedy = "Set `range: percentile`, or leave it out."
        yield Finding((*key, "percentile"), message, remedy, unread=True)


def _is_changed(options: Frozen, name: str) -> bool:
    """Whether an option has another value than where nothing is given."""
    field = type(options).model_fields[name]
    return bool(getattr(options, name) != field.get_default(call_default_factory=True))
