"""``quantship run``: a recipe, start to end, or again what a lock says."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer
from rich.text import Text

import quantship.recipe as recipes
from quantship import outlook, processes, showing
from quantship.commands.arguments import Artifacts, Debug, Overrides, Profile
from quantship.console import screen, session_together
from quantship.errors import GateError, UsageError
from quantship.progress import bars
from quantship.recipe import consent, shipped

if TYPE_CHECKING:
    from quantship import pipeline
    from quantship.recipe import Recipe
    from quantship.repeating import Repetition


def run(
    recipe: Annotated[
        str | None,
        typer.Argument(help="A YAML file, or the name of a recipe that comes with quantship."),
    ] = None,
    overrides: Overrides = None,
    profile: Profile = None,
    artifacts: Artifacts = Path("artifacts"),
    plan: Annotated[
        bool, typer.Option("--plan", help="Only show what would run, and what is reused.")
    ] = False,
    locked: Annotated[
        Path | None,
        typer.Option(metavar="LOCK", help="Repeat the run of a lock.json, in place of RECIPE."),
    ] = None,
    allow_changed: Annotated[
        bool,
        typer.Option("--allow-changed", help="With --locked: run on changed data or models too."),
    ] = False,
    allow_code: Annotated[
        bool,
        typer.Option(consent.FLAG, help="Run tasks that run code of others, as what models write."),
    ] = False,
    fsdp: Annotated[
        bool,
        typer.Option(
            "--fsdp", help="Under torchrun: share the weights of what trains between the processes."
        ),
    ] = False,
    debug: Debug = False,
) -> None:
    """Run a recipe. What an earlier run has made already is reused.

    `quantship RECIPE` is short for `quantship run RECIPE`. Under torchrun, several processes share
    the work.
    """
    with session_together(debug):
        from quantship.parallel import asked

        asked.settle(fsdp=fsdp)
        if locked is not None:
            if recipe is not None or profile is not None:
                raise UsageError("--locked stands in place of a recipe and its profile; leave one")
            _repeat(locked, overrides or (), artifacts, plan, allow_changed, allow_code)
            return
        if recipe is None:
            raise UsageError("name a recipe, or a lock.json with --locked")
        path = shipped.find(recipe)
        loaded = processes.in_step(
            lambda: recipes.load(path, overrides=overrides or (), profile=profile)
        )
        if plan:
            _show_plan(loaded, artifacts)
        else:
            _run(loaded, artifacts, allow_code)


def _repeat(
    lock: Path,
    overrides: Sequence[str],
    artifacts: Path,
    plan: bool,
    allow_changed: bool,
    allow_code: bool,
) -> None:
    from quantship import repeating

    asked = processes.in_step(lambda: repeating.begin(lock, overrides))
    screen().print(repeating.differences_shown(asked))
    if not allow_changed:
        processes.in_step(asked.require_inputs)
    if plan:
        _show_plan(asked.recipe, artifacts)
    else:
        _run(asked.recipe, artifacts, allow_code, asked)


def _run(
    recipe: Recipe, artifacts: Path, allow_code: bool, repeated: Repetition | None = None
) -> None:
    from quantship import lockstep, pipeline

    out = screen()
    if processes.number() > 1:
        out.print(showing.company(lockstep.members()))
    failed: GateError | None = None
    reused: set[str] = set()

    def notify(event: pipeline.Event) -> None:
        if event.kind == "reused":
            reused.add(event.step)
        out.print(showing.event_line(event))

    with bars(out) if processes.is_first() else nullcontext():
        try:
            result = pipeline.run(recipe, artifacts, notify, allow_code=allow_code)
        except GateError as error:  # the run is finished, and its numbers are what to look at
            result, failed = cast("pipeline.RunResult", error.result), error
    if processes.is_first():
        _show(result, repeated, reused)
    processes.meet()  # a launcher stops those that still run when one ends with an error
    if failed is not None:
        raise failed


def _show(result: pipeline.RunResult, repeated: Repetition | None, reused: set[str]) -> None:
    from quantship.reporting import terminal

    out = screen()
    out.print()
    for part in terminal.parts(result.report):
        out.print(part)
    if repeated is not None:
        from quantship import repeating

        out.print(repeating.outcome_shown(repeated, result, reused))
    out.print(Text.assemble("Report: ", (str(result.report_dir / "report.html"), "bold")))


def _show_plan(recipe: Recipe, artifacts: Path) -> None:
    from quantship import pipeline

    planned = pipeline.plan(recipe, artifacts)
    out = screen()
    out.print(showing.plan_table(planned))
    out.print(showing.plan_summary(planned))
    for found in (outlook.short(recipe), outlook.code(recipe)):
        if found is not None:
            out.print(found)
