"""Evaluation tasks of a recipe: what they are called, and whether their models exist."""

from __future__ import annotations

from collections.abc import Iterator

from quantship.recipe.findings import Finding
from quantship.recipe.keys import suggest
from quantship.recipe.language import MODEL, ExportStep, Recipe, SearchStep, Task
from quantship.recipe.model_names import exported_as

DATA = "data"
"""What no task can be called."""


def name_of(task: Task) -> str:
    """What the report calls a task."""
    return task.name or task.task


def model_names(recipe: Recipe) -> list[str]:
    """Every model that a resolved recipe evaluates: where it starts, steps, exports."""
    names = [MODEL]
    for step in recipe.steps:
        if isinstance(step, ExportStep):
            names += exported_as(step).values()
        elif not isinstance(step, SearchStep):
            names.append(str(step.name))
    return names


def find_problems(recipe: Recipe) -> Iterator[Finding]:
    """Tasks that share a name or cannot run here, and models that no step makes."""
    if recipe.evaluation is None:
        return
    known, taken = model_names(recipe), set[str]()
    for index, task in enumerate(recipe.evaluation.tasks):
        key = ("evaluation", "tasks", index)
        name = name_of(task)
        if name == DATA:
            message = "the report calls the recipe's own evaluation data 'data'"
            yield Finding((*key, "name"), message, "Choose another name.")
        if name in taken:
            yield Finding(key, f"a second task is called '{name}'", "Give it a name of its own.")
        taken.add(name)
        for place, model in enumerate(task.models or ()):
            if model not in known:
                message = f"no model is called '{model}'"
                remedy = f"{suggest(model, known)}Models here: {', '.join(known)}."
                yield Finding((*key, "models", place), message, remedy)
        for one in task.find_obstacles():
            yield Finding((*key, one.key), one.message, one.remedy)
