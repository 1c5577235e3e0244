"""Code of others that a recipe's tasks run, which only the user can allow: never the recipe."""

from __future__ import annotations

from quantship.errors import UsageError
from quantship.recipe.evaluations import name_of
from quantship.recipe.language import Recipe

FLAG = "--allow-code"


def needed(recipe: Recipe) -> list[str]:
    """A sentence on each task that runs code of others."""
    tasks = recipe.evaluation.tasks if recipe.evaluation is not None else ()
    return [f"task '{name_of(task)}' {task.runs_code}" for task in tasks if task.runs_code]


def require(recipe: Recipe, *, allowed: bool) -> None:
    """Do nothing where the user allows whatever the recipe runs.

    Args:
        recipe: As ``recipe.load`` returns it.
        allowed: Whether the user does.

    Raises:
        UsageError: The user does not, and the recipe would run code of others.
    """
    found = [] if allowed else needed(recipe)
    if found:
        lines = "".join(f"\n    {sentence}" for sentence in found)
        raise UsageError(
            f"this recipe runs code that nobody has allowed yet:{lines}\n"
            f"    Allow it with quantship run {FLAG}, or in Python with allow_code=True."
        )
