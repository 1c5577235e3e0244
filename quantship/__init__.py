"""Recipes from data to deployable quantized models: the integers trained are the integers shipped.

>>> import quantship
>>> recipe = quantship.check("recipe.yaml")      # raises RecipeError with every problem
>>> result = quantship.run("recipe.yaml")        # RunResult: report, directories
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from quantship.pipeline import RunResult
    from quantship.recipe import Recipe

__all__ = ["check", "run"]
__version__ = "0.1.0"


def check(
    recipe: str | Path, *, overrides: Sequence[str] = (), profile: str | None = None
) -> Recipe:
    """Read a recipe and check all of it, creating nothing.

    Args:
        recipe: Path of a YAML file.
        overrides: ``KEY=VALUE`` each, as on the command line.
        profile: Name of one of the recipe's profiles.

    Raises:
        RecipeError: With every problem found, each with file, line and remedy.
    """
    import quantship.recipe

    return quantship.recipe.check(Path(recipe), overrides=overrides, profile=profile)


def run(
    recipe: str | Path,
    *,
    overrides: Sequence[str] = (),
    profile: str | None = None,
    artifacts: str | Path = "artifacts",
) -> RunResult:
    """Run a recipe; whatever is in ``artifacts`` already is reused.

    Args:
        recipe: Path of a YAML file.
        overrides: ``KEY=VALUE`` each, as on the command line.
        profile: Name of one of the recipe's profiles.
        artifacts: Where models and reports land.

    Raises:
        QuantshipError: As ``errors`` draws them.
    """
    from quantship import pipeline

    return pipeline.run(check(recipe, overrides=overrides, profile=profile), Path(artifacts))
