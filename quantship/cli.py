"""The command line: the table of its commands, each of which is a file in ``commands/``."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import Annotated

import typer

import quantship
from quantship import processes, stopping
from quantship.commands import (
    check,
    compare,
    data,
    examples,
    explain,
    inspect,
    push,
    run,
    validate,
)
from quantship.recipe import shipped

app = typer.Typer(
    help="From a recipe to quantized models that ship: fine-tune, QAT, PTQ, ONNX, report.",
    epilog=examples.MAIN,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)

app.command()(run.run)
app.command()(check.check)
app.command(epilog=examples.DATA)(data.data)
app.command()(explain.explain)
app.command(epilog=examples.INSPECT)(inspect.inspect)
app.command(epilog=examples.VALIDATE)(validate.validate)
app.command(epilog=examples.COMPARE)(compare.compare)
app.command(epilog=examples.PUSH)(push.push)
app.command()(explain.schema)

SHOWS_ONLY = ("--plan", "--help", "-h")
"""Options with which ``run`` runs nothing."""

COMMANDS = ("run", "check", "data", "explain", "schema", "inspect", "validate", "compare", "push")
"""First words that stand for no recipe."""


def main() -> None:
    """Do what the words after ``quantship`` ask for; ``__main__`` has stops watched before."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a tick must not end a run on an old terminal
    arguments = sys.argv[1:]
    if arguments and _stands_for_run(arguments[0]):
        arguments = ["run", *arguments]
    try:
        if processes.number() == 1 or _is_run(arguments):
            app(args=arguments, prog_name="quantship")
        elif processes.is_first():  # the others have nothing to do
            with processes.alone():
                app(args=arguments, prog_name="quantship")
    except SystemExit as ended:
        if stopping.requested():
            sys.stdout.flush()
            aborted = ended.code == 1  # between commands; click says so of its own accord
            stopping.leave(stopping.EXIT_CODE if aborted else int(ended.code or 0))
        raise


@app.callback(invoke_without_command=True)
def _options(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    if version:
        typer.echo(f"quantship {quantship.__version__}")
        raise typer.Exit


def _is_run(arguments: list[str]) -> bool:
    return arguments[:1] == ["run"] and not set(arguments) & set(SHOWS_ONLY)


def _stands_for_run(word: str) -> bool:
    if word.startswith("-") or word in COMMANDS:
        return False
    return Path(word).suffix in (".yaml", ".yml") or Path(word).exists() or word in shipped.names()
