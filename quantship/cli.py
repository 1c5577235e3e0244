"""The command line: its commands, each of which hands over to a room of its own."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table
from rich.text import Text

import quantship
import quantship.recipe as recipes
from quantship.console import errors_shown, quiet_libraries, screen
from quantship.progress import bars
from quantship.recipe import explain as language
from quantship.recipe import shipped
from quantship.reporting.formatting import DASH, size

if TYPE_CHECKING:
    from quantship.pipeline import Event, PlannedStep
    from quantship.recipe import Recipe

_EXAMPLES = """\
Examples:

\b
  quantship quickstart                 run a recipe that comes with quantship
  quantship my.yaml --profile smoke    run your own, in its short form
  quantship my.yaml --set seed=1       change any of its keys
  quantship run my.yaml --plan         what would run, and what is reused
  quantship check my.yaml              everything that is wrong with it
  quantship explain steps.qat          what a step understands
"""

app = typer.Typer(
    help="From a recipe to quantized models that ship: fine-tune, QAT, PTQ, ONNX, report.",
    epilog=_EXAMPLES,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)

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


@app.command()
def run(
    recipe: RecipeArgument,
    overrides: Overrides = None,
    profile: Profile = None,
    artifacts: Annotated[
        Path, typer.Option(metavar="DIR", help="Where everything that is made is kept.")
    ] = Path("artifacts"),
    plan: Annotated[
        bool, typer.Option("--plan", help="Only show what would run, and what is reused.")
    ] = False,
    debug: Debug = False,
) -> None:
    """Run a recipe. What an earlier run has made already is reused.

    `quantship RECIPE` is short for `quantship run RECIPE`.
    """
    with errors_shown(debug):
        if not debug:
            quiet_libraries()
        loaded = recipes.load(shipped.find(recipe), overrides=overrides or (), profile=profile)
        if plan:
            _show_plan(loaded, artifacts)
        else:
            _run(loaded, artifacts)


@app.command()
def check(
    recipe: RecipeArgument,
    overrides: Overrides = None,
    profile: Profile = None,
    debug: Debug = False,
) -> None:
    """Report everything that is wrong with a recipe, at once."""
    with errors_shown(debug):
        if not debug:
            quiet_libraries()
        path = shipped.find(recipe)
        checked = recipes.check(path, overrides=overrides or (), profile=profile)
        names = ", ".join(str(step.name) for step in checked.steps)
        screen().print(
            Text.assemble(("✓ ", "green"), f"{path}: {len(checked.steps)} steps: {names}")
        )


@app.command()
def explain(
    key: Annotated[
        str | None, typer.Argument(help="A key, as steps.qat; without it: the whole language.")
    ] = None,
) -> None:
    """Explain the recipe language, or one of its keys."""
    with errors_shown(debug=False):
        screen().print(language.explain(key))


@app.command()
def schema() -> None:
    """Print the recipe language as JSON Schema, for editors."""
    typer.echo(language.schema_text(), nl=False)


def main() -> None:
    """Entry point of the ``quantship`` command."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a tick must not end a run on an old terminal
    arguments = sys.argv[1:]
    if arguments and _stands_for_run(arguments[0]):
        arguments = ["run", *arguments]
    app(args=arguments, prog_name="quantship")


@app.callback(invoke_without_command=True)
def _options(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    if version:
        typer.echo(f"quantship {quantship.__version__}")
        raise typer.Exit


def _stands_for_run(word: str) -> bool:
    if word.startswith("-") or word in ("run", "check", "explain", "schema"):
        return False
    return Path(word).suffix in (".yaml", ".yml") or Path(word).exists() or word in shipped.names()


def _run(recipe: Recipe, artifacts: Path) -> None:
    from quantship import pipeline
    from quantship.reporting import terminal

    out = screen()
    with bars(out):
        result = pipeline.run(recipe, artifacts, lambda event: out.print(_event_line(event)))
    out.print()
    out.print(terminal.table(result.report))
    out.print(Text.assemble("Report: ", (str(result.report_dir / "report.html"), "bold")))


def _show_plan(recipe: Recipe, artifacts: Path) -> None:
    from quantship import pipeline

    planned = pipeline.plan(recipe, artifacts)
    out = screen()
    out.print(_plan_table(planned))
    out.print(_plan_summary(planned))


def _plan_table(planned: list[PlannedStep]) -> Table:
    table = Table(box=None, pad_edge=False)
    for title in ("Step", "Stage", "", "Disk", "Memory", "Directory"):
        table.add_column(title, justify="right" if title in ("Disk", "Memory") else "left")
    for step in planned:
        state = Text("✓ reused", "green") if step.reused else Text("▸ runs", "yellow")
        disk, memory = (
            DASH if number is None else size(number)
            for number in (step.disk_bytes, step.memory_bytes)
        )
        table.add_row(step.name, step.stage, state, disk, memory, Text(str(step.path), "dim"))
    return table


def _plan_summary(planned: list[PlannedStep]) -> str:
    ahead = [step for step in planned if not step.reused]
    disk = size(sum(step.disk_bytes or 0 for step in ahead))
    memory = size(max((step.memory_bytes or 0 for step in ahead), default=0))
    reused = len(planned) - len(ahead)
    return f"{len(ahead)} to run, {reused} reused; about {disk} to write, {memory} of memory"


def _event_line(event: Event) -> Text:
    signs = {"reused": "✓", "started": "▸", "finished": "✓", "failed": "✗"}
    words = {"reused": "reused", "started": "running", "finished": "done", "failed": "failed"}
    styles = {"reused": "green", "started": "yellow", "finished": "green", "failed": "bold red"}
    seconds = f" {_duration(event.seconds)}" if event.seconds is not None else ""
    return Text.assemble(
        (f"{signs[event.kind]} ", styles[event.kind]),
        f"{event.step:<24} ",
        (f"{words[event.kind]}{seconds}", styles[event.kind]),
        (f"  {event.detail}" if event.detail else "", "dim"),
    )


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s"
