"""Whether the models that a recipe pushes have room beside each other in one repository."""

from __future__ import annotations

from collections.abc import Iterator

from quantship.exporters.file_names import file_name
from quantship.quant.scheme import Scheme
from quantship.recipe import searches
from quantship.recipe.findings import Finding
from quantship.recipe.language import ExportStep, QatStep, QuantizeStep, Recipe, SearchStep
from quantship.recipe.model_names import exported_as

_REMEDY = (
    "Push one of them, or use `layout: folders` (a folder for each model) or `layout: several` "
    "(a repository for each)."
)


def find_problems(recipe: Recipe) -> Iterator[Finding]:
    """Models of ``layout: one`` that would take each other's place.

    Args:
        recipe: Resolved: with the names, inputs and schemes of its steps filled in.
    """
    if recipe.push is None or recipe.push.layout != "one":
        return
    taken: dict[str, str] = {}
    places = _places(recipe)
    for index, name in enumerate(recipe.push.models):
        place = places.get(name)
        if place is None:
            continue
        other = taken.setdefault(place, name)
        if other != name:
            message = f"'{name}' and '{other}' both go to {place} of one repository"
            yield Finding(("push", "models", index), message, _REMEDY)


def _places(recipe: Recipe) -> dict[str, str]:
    """Where each model goes, in words, as far as that is known before the run."""
    schemes = searches.table(recipe)
    of_step: dict[str, Scheme | None] = {}
    found: dict[str, str] = {}
    for step in recipe.steps:
        if isinstance(step, SearchStep):
            continue
        if not isinstance(step, ExportStep):
            rounds = isinstance(step, QuantizeStep) or (
                isinstance(step, QatStep) and step.output == "quantized"
            )
            of_step[str(step.name)] = (
                schemes.get(str(getattr(step, "scheme", None))) if rounds else None
            )
            found[str(step.name)] = "the top"
            continue
        for source, name in exported_as(step).items():
            stem = file_name(of_step.get(source)).stem
            found[name] = f"onnx/{stem}.onnx" if step.format == "onnx" else "openvino"
    return found
