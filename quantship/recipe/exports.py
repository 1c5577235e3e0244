"""The models that a recipe exports, with every name that stands for another resolved."""

from __future__ import annotations

from collections.abc import Iterator

from quantship.exporters import lowering, targets
from quantship.exporters.formats import FormatName
from quantship.exporters.lowering import Lowering
from quantship.exporters.targets import Target
from quantship.frozen import Frozen
from quantship.quant.scheme import Scheme
from quantship.recipe import searches
from quantship.recipe.language import ExportStep, QatStep, QuantizeStep, Recipe
from quantship.recipe.resolve import exported_as


class Export(Frozen):
    """One model that a run will export."""

    name: str
    """What the run calls it."""
    format: FormatName
    lowering: Lowering | None
    """None where the format has no choice of them."""
    target: Target
    scheme: Scheme | None
    """Scheme of the model; None for a float model."""


def find(recipe: Recipe) -> Iterator[Export]:
    """Every model that a resolved recipe exports, in order."""
    table = searches.table(recipe)
    made: dict[str, Scheme] = {}
    for step in recipe.steps:
        if isinstance(step, ExportStep):
            for source, name in exported_as(step).items():
                yield _settle(name, step, made.get(source))
        elif isinstance(step, QuantizeStep) or (
            isinstance(step, QatStep) and step.output == "quantized"
        ):
            made[str(step.name)] = table[str(step.scheme)]


def settle(step: ExportStep, scheme: Scheme | None) -> tuple[Lowering | None, Target]:
    """The lowering and the target that an export's words stand for here.

    Args:
        step: The export.
        scheme: Scheme of the model; None for a float model.
    """
    if step.format != "onnx":  # such files are the same for all machines
        return None, "portable"
    target = targets.resolve(step.target)
    asked = step.lowering
    return lowering.choose(scheme, target) if asked == "auto" else asked, target


def _settle(name: str, step: ExportStep, scheme: Scheme | None) -> Export:
    form, target = settle(step, scheme)
    return Export(name=name, format=step.format, lowering=form, target=target, scheme=scheme)
