"""The recipes that come with the package, each known by its bare name."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from quantship.errors import UsageError
from quantship.recipe.keys import suggest


def folder() -> Path:
    """Where the shipped recipes lie: in the installed package, or in the checkout around it."""
    package = Path(str(files("quantship")))
    installed = package / "recipes"
    return installed if installed.is_dir() else package.parent / "recipes"


def names() -> list[str]:
    """Names of the shipped recipes."""
    return sorted(path.stem for path in folder().glob("*.yaml"))


def find(recipe: str) -> Path:
    """The recipe file that a name or a path stands for; an existing file comes first.

    Raises:
        UsageError: There is no such file, and no recipe of that name is shipped.
    """
    path = Path(recipe)
    if path.exists() or path.suffix in (".yaml", ".yml") or path.name != recipe:
        return path
    if recipe in names():
        return folder() / f"{recipe}.yaml"
    raise UsageError(
        f"no recipe '{recipe}': neither a file here nor one of those that come with quantship.\n"
        f"    {suggest(recipe, names())}Shipped: {', '.join(names())}."
    )
