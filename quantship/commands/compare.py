"""``quantship compare``: the models of several runs in one ranking."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from quantship.commands.arguments import AsJson, Debug
from quantship.console import screen, session


def compare(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Runs to compare.")],
    html: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Also write a page with plots.")
    ] = None,
    markdown: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Also write it as Markdown.")
    ] = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Rank the models of several runs, and show in what the runs differ."""
    with session(debug):
        from quantship.comparing import compare as comparing
        from quantship.comparing import files, terminal

        found = comparing.compare(runs)
        written = files.write(found, html=html, markdown=markdown)
        if as_json:
            typer.echo(found.model_dump_json(indent=2))
            return
        out = screen()
        out.print(terminal.render(found))
        for path in written:
            out.print(Text.assemble("Written: ", (str(path), "bold")))
