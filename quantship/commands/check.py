"""``quantship check``: everything that is wrong with a recipe."""

from __future__ import annotations

from rich.text import Text

import quantship.recipe as recipes
from quantship import outlook
from quantship.commands.arguments import Debug, Overrides, Profile, RecipeArgument
from quantship.console import screen, session
from quantship.recipe import shipped


def check(
    recipe: RecipeArgument,
    overrides: Overrides = None,
    profile: Profile = None,
    debug: Debug = False,
) -> None:
    """Report everything that is wrong with a recipe, at once."""
    with session(debug):
        path = shipped.find(recipe)
        checked = recipes.check(path, overrides=overrides or (), profile=profile)
        names = ", ".join(str(step.name) for step in checked.steps)
        screen().print(
            Text.assemble(("✓ ", "green"), f"{path}: {len(checked.steps)} steps: {names}")
        )
        for found in (outlook.full(checked), outlook.code(checked)):
            if found is not None:
                screen().print(found)
