"""``quantship data``: what a recipe would train and evaluate on."""

from __future__ import annotations

from typing import Annotated

import typer

import quantship.recipe as recipes
from quantship.commands.arguments import AsJson, Debug, Overrides, Profile, RecipeArgument
from quantship.console import bars_beside_the_output, screen, session
from quantship.recipe import shipped


def data(
    recipe: RecipeArgument,
    overrides: Overrides = None,
    profile: Profile = None,
    rendered: Annotated[
        int, typer.Option("--examples", min=0, help="Records of each source to show.")
    ] = 2,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Records of each source to read, at most.")
    ] = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Show what a recipe would train and evaluate on; nothing is run."""
    with session(debug):
        from quantship.previewing import preview, terminal

        loaded = recipes.load(shipped.find(recipe), overrides=overrides or (), profile=profile)
        with bars_beside_the_output():
            found = preview.preview(loaded, examples=rendered, limit=limit)
        if as_json:
            typer.echo(found.model_dump_json(indent=2))
        else:
            screen().print(terminal.render(found))
