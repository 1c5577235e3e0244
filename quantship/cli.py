"""The command line: the only place that prints, errors included."""

from __future__ import annotations

import io
import logging
import os
import sys
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

import quantship
import quantship.recipe as recipes
from quantship.errors import QuantshipError
from quantship.progress import bars
from quantship.recipe import explain as language
from quantship.recipe import shipped
from quantship.reporting.formatting import DASH, size

if TYPE_CHECKING:
    from quantship.pipeline import Event, PlannedStep
    from quantship.recipe import Recipe

INTERRUPTED = 130
INTERNAL_ERROR = 1
PIPED_WIDTH = 120
"""Columns where the output is no terminal: the table of models needs 100."""

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
    with _errors_shown(debug):
        if not debug:
            _quiet_libraries()
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
    with _errors_shown(debug):
        if not debug:
            _quiet_libraries()
        path = shipped.find(recipe)
        checked = recipes.check(path, overrides=overrides or (), profile=profile)
        names = ", ".join(str(step.name) for step in checked.steps)
        _out().print(Text.assemble(("✓ ", "green"), f"{path}: {len(checked.steps)} steps: {names}"))


@app.command()
def explain(
    key: Annotated[
        str | None, typer.Argument(help="A key, as steps.qat; without it: the whole language.")
    ] = None,
) -> None:
    """Explain the recipe language, or one of its keys."""
    with _errors_shown(debug=False):
        _out().print(language.explain(key))


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

    out = _out()
    with bars(out):
        result = pipeline.run(recipe, artifacts, lambda event: out.print(_event_line(event)))
    out.print()
    out.print(terminal.table(result.report))
    out.print(Text.assemble("Report: ", (str(result.report_dir / "report.html"), "bold")))


def _show_plan(recipe: Recipe, artifacts: Path) -> None:
    from quantship import pipeline

    planned = pipeline.plan(recipe, artifacts)
    out = _out()
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


@contextmanager
def _errors_shown(debug: bool) -> Iterator[None]:
    """Turn whatever goes wrong inside into a message and an exit code.

    Args:
        debug: Show the traceback in place of the message.
    """
    try:
        yield
    except KeyboardInterrupt:
        _complain("Interrupted. The same command resumes where it stopped.", debug)
        raise typer.Exit(INTERRUPTED) from None
    except QuantshipError as error:
        _complain(str(error), debug)
        raise typer.Exit(error.exit_code) from None
    except (typer.Exit, BrokenPipeError):
        raise
    except Exception as error:  # noqa: BLE001 - the last resort: no user meets a bare traceback
        message = f"internal error: {type(error).__name__}: {error}"
        _complain(f"{message}\n    This is a bug in quantship; --debug shows where.", debug)
        raise typer.Exit(INTERNAL_ERROR) from None


def _complain(message: str, debug: bool) -> None:
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    if debug:
        traceback.print_exc()
    else:
        console.print(Text(message, "red"))


def _out() -> Console:
    return Console(highlight=False, width=None if sys.stdout.isatty() else PIPED_WIDTH)


def _quiet_libraries() -> None:
    """Keep the libraries' progress bars, warnings and logs off the user's screen.

    By environment variables where there are any: they reach child processes as well, and must be
    set before the libraries are imported.
    """
    quiet = {
        "DATASETS_VERBOSITY": "error",
        "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "HF_HUB_VERBOSITY": "error",
        "PYTHONWARNINGS": "ignore",
        "TOKENIZERS_PARALLELISM": "false",
        "TORCH_LOGS": "-all",
        "TQDM_DISABLE": "1",
        "TRANSFORMERS_NO_ADVISORY_WARNINGS": "1",
        "TRANSFORMERS_VERBOSITY": "error",
    }
    for name, value in quiet.items():
        os.environ.setdefault(name, value)  # who sets one of these wants to hear it
    warnings.filterwarnings("ignore")
    for name in ("torch", "torchao", "transformers", "datasets", "onnxruntime", "onnxscript"):
        logging.getLogger(name).setLevel(logging.ERROR)
