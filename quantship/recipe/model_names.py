"""What the models of a run are called, and which of them it uploads."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from quantship.recipe.findings import Finding
from quantship.recipe.keys import suggest
from quantship.recipe.language import ExportStep, Recipe, SearchStep

Variants = Mapping[str, Sequence[str]]
"""Names of the steps that a swept step became, by its own name."""


def exported_as(step: ExportStep) -> dict[str, str]:
    """What a run calls the models that an export makes, by the names of its inputs."""
    assert step.input is not None
    if step.name in (None, step.stage):
        return {source: f"{source}-{step.format}" for source in step.input}
    if len(step.input) == 1:
        return {step.input[0]: str(step.name)}
    return {source: f"{step.name}-{source}" for source in step.input}


def find_problems(recipe: Recipe, variants: Variants) -> Iterator[Finding]:
    """Exports that take another model's name, and models to push that nothing makes.

    Args:
        recipe: With the names and inputs of its steps filled in.
        variants: What swept steps became.
    """
    models = [
        str(step.name) for step in recipe.steps if not isinstance(step, ExportStep | SearchStep)
    ]
    for index, step in enumerate(recipe.steps):
        for name in exported_as(step).values() if isinstance(step, ExportStep) else ():
            if name in models:
                message = f"exports a model as '{name}', which is the name of another"
                yield Finding(("steps", index), message, "Rename one of the steps.")
            models.append(name)
    swept = _swept_models(recipe, variants)
    for index, name in enumerate(recipe.push.models if recipe.push else ()):
        if name not in models and name not in swept:
            remedy = f"{suggest(name, [*models, *swept])}Models: {', '.join(models)}."
            yield Finding(("push", "models", index), f"no model is called '{name}'", remedy)


def fill_in(recipe: Recipe, variants: Variants) -> Recipe:
    """The recipe with all models of a sweep named where gates or the push name its step."""
    swept = _swept_models(recipe, variants)

    def named(models: Sequence[str]) -> dict[str, object]:
        found = (one for name in models for one in swept.get(name, [name]))
        return {"models": tuple(dict.fromkeys(found))}

    gates = tuple(
        gate if gate.models is None else gate.model_copy(update=named(gate.models))
        for gate in recipe.gates
    )
    push = recipe.push and recipe.push.model_copy(update=named(recipe.push.models))
    return recipe.model_copy(update={"gates": gates, "push": push})


def _swept_models(recipe: Recipe, variants: Variants) -> dict[str, list[str]]:
    """The models of sweeps, by what each would be called without a sweep."""
    own = {name: called for called, names in variants.items() for name in names}
    found: dict[str, list[str]] = {}
    for step in recipe.steps:
        name = str(step.name)
        if not isinstance(step, ExportStep):
            if name in own and not isinstance(step, SearchStep):
                found.setdefault(own[name], []).append(name)
            continue
        assert step.input is not None
        sources = tuple(dict.fromkeys(own.get(source, source) for source in step.input))
        unswept = exported_as(
            step.model_copy(update={"name": own.get(name, name), "input": sources})
        )
        for source, model in exported_as(step).items():
            called = unswept[own.get(source, source)]
            if called != model:
                found.setdefault(called, []).append(model)
    return found
