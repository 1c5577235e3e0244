"""``quantship explain`` and ``quantship schema``: the recipe language."""

from __future__ import annotations

from typing import Annotated

import typer

from quantship.console import errors_shown, screen
from quantship.recipe import explain as language


def explain(
    key: Annotated[
        str | None, typer.Argument(help="A key, as steps.qat; without it: the whole language.")
    ] = None,
) -> None:
    """Explain the recipe language, or one of its keys."""
    with errors_shown(debug=False):
        screen().print(language.explain(key))


def schema() -> None:
    """Print the recipe language as JSON Schema, for editors."""
    typer.echo(language.schema_text(), nl=False)
