"""``quantship inspect``: what is in a model file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from quantship.commands.arguments import AsJson, Debug
from quantship.console import screen, session


def inspect(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="A model file or directory.")],
    every: Annotated[bool, typer.Option("--all", help="Show every tensor in a row of its own.")] = (
        False
    ),
    no_session: Annotated[
        bool, typer.Option("--no-session", help="Do not ask ONNX Runtime what it fuses here.")
    ] = False,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Show what is in a model: layers, formats, operators, sizes, and what to beware of here."""
    with session(debug):
        from quantship.inspection import inspect as inspecting
        from quantship.inspection import terminal

        found = inspecting.inspect(model, session=not no_session)
        if as_json:
            typer.echo(found.model_dump_json(indent=2))
            return
        out = screen()
        out.print(terminal.render(found, every=every), width=min(out.width, terminal.WIDTH))
