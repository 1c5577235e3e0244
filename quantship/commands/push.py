"""``quantship push``: a finished run goes to the Hub."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from quantship.commands.arguments import Debug, Overrides, Profile
from quantship.console import screen, session


def push(
    run: Annotated[str, typer.Argument(metavar="RUN", help="A run's directory, or its recipe.")],
    repo: Annotated[
        str | None, typer.Option(metavar="NAME", help="Repository, in place of the recipe's.")
    ] = None,
    models: Annotated[
        list[str] | None,
        typer.Option("--model", metavar="NAME", help="Model, in place of the recipe's; many."),
    ] = None,
    license: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="License by the Hub's name, in place of the recipe's."),
    ] = None,
    overrides: Overrides = None,
    profile: Profile = None,
    artifacts: Annotated[
        Path, typer.Option(metavar="DIR", help="Where a recipe's run is kept.")
    ] = Path("artifacts"),
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only list repositories, files and bytes.")
    ] = False,
    debug: Debug = False,
) -> None:
    """Upload a finished run to the Hugging Face Hub; nothing is run."""
    with session(debug):
        from quantship.publishing import asked, terminal
        from quantship.stages import push as pushing

        what = asked.find(run, artifacts, overrides or (), profile)
        options = asked.options(what, repo, models, license)
        out = screen()
        if dry_run:
            out.print(terminal.listing(pushing.prepare(what.run, options), options))
            return
        pushing.upload(options, what.run.directory, lambda one: out.print(terminal.done(one)))
