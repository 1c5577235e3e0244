"""Arguments and options that several commands have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

RecipeArgument = Annotated[
    str, typer.Argument(help="A YAML file, or the name of a recipe that comes with quantship.")
]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change a key; may be given many times."),
]
Profile = Annotated[
    str | None, typer.Option("--profile", metavar="NAME", help="Use one of the recipe's profiles.")
]
Debug = Annotated[bool, typer.Option("--debug", help="Show tracebacks and what the libraries say.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print everything as JSON.")]
Artifacts = Annotated[
    Path, typer.Option(metavar="DIR", help="Where everything that is made is kept.")
]
