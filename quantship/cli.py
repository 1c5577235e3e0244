"""The command line: its commands, each of which hands over to a room of its own."""

from __future__ import annotations

import io
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

import quantship
import quantship.recipe as recipes
from quantship import outlook
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
  quantship inspect MODEL              what is in a model file
  quantship validate A B               hold two models against each other
"""

_INSPECT_EXAMPLES = """\
MODEL is an .onnx file, a .safetensors file, or a directory with one of the two; of quantship or
from elsewhere. Nothing is run, and weights are not loaded; ONNX Runtime optimizes ONNX models once,
to show which operators it fuses on this machine.

Examples:

\b
  quantship inspect models/onnx                  inputs, layers, operators, warnings
  quantship inspect model.onnx --all             one row a tensor
  quantship inspect model.onnx --no-session      from the file alone
  quantship inspect models/qat --json            a checkpoint, for a program
"""

_VALIDATE_EXAMPLES = """\
A and B are each a Hugging Face directory (float or torchao), a directory with model.onnx, or an
.onnx file. The exit code is 0 when they are equal within tolerance and 4 when they are not.

Examples:

\b
  quantship validate models/qat models/onnx                 a checkpoint and its export
  quantship validate model.onnx other.onnx --json           two ONNX models, for a program
  quantship validate models/float models/onnx --max-kl 0.05 how far quantization may go
  quantship validate A B --text book.txt --length 512       on a text of your own
  quantship validate A B --outputs-only                     stored numbers may differ
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
        found = outlook.full(checked)
        if found is not None:
            screen().print(found)


@app.command()
def explain(
    key: Annotated[
        str | None, typer.Argument(help="A key, as steps.qat; without it: the whole language.")
    ] = None,
) -> None:
    """Explain the recipe language, or one of its keys."""
    with errors_shown(debug=False):
        screen().print(language.explain(key))


@app.command(epilog=_INSPECT_EXAMPLES)
def inspect(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="A model file or directory.")],
    every: Annotated[bool, typer.Option("--all", help="Show every tensor in a row of its own.")] = (
        False
    ),
    no_session: Annotated[
        bool, typer.Option("--no-session", help="Do not ask ONNX Runtime what it fuses here.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
    debug: Debug = False,
) -> None:
    """Show what is in a model: layers, formats, operators, sizes, and what to beware of here."""
    with errors_shown(debug):
        if not debug:
            quiet_libraries()
        from quantship.inspection import inspect as inspecting
        from quantship.inspection import terminal

        found = inspecting.inspect(model, session=not no_session)
        if as_json:
            typer.echo(found.model_dump_json(indent=2))
            return
        out = screen()
        out.print(terminal.render(found, every=every), width=min(out.width, terminal.WIDTH))


@app.command(epilog=_VALIDATE_EXAMPLES)
def validate(
    a: Annotated[Path, typer.Argument(metavar="A", help="A model.")],
    b: Annotated[Path, typer.Argument(metavar="B", help="The model to hold against it.")],
    text: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Text that both read. [default: a built-in text]"),
    ] = None,
    sequences: Annotated[int, typer.Option(min=1, help="Sequences (or batches) to feed.")] = 4,
    length: Annotated[int, typer.Option(min=2, help="Tokens of a sequence.")] = 128,
    new_tokens: Annotated[int, typer.Option(min=1, help="Tokens to continue greedily.")] = 24,
    seed: Annotated[int, typer.Option(min=0, help="Of random inputs.")] = 0,
    tolerance: Annotated[
        float | None,
        typer.Option(min=0, help="Largest difference of outputs, in standard deviations."),
    ] = None,
    min_top1: Annotated[
        float | None,
        typer.Option("--min-top1", min=0, max=1, help="Least share of equal predictions."),
    ] = None,
    max_kl: Annotated[
        float | None, typer.Option("--max-kl", min=0, help="Largest KL(A || B), nats a token.")
    ] = None,
    outputs_only: Annotated[
        bool, typer.Option("--outputs-only", help="Let stored numbers differ.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
    debug: Debug = False,
) -> None:
    """Hold two models against each other: files, integers, outputs, greedy text.

    Tolerances that are not given follow from what the two have in common, and are shown.
    """
    with errors_shown(debug):
        if not debug:
            quiet_libraries()
        from quantship.validation import options, report, run, terminal

        asked = options.Options(
            text=text,
            sequences=sequences,
            length=length,
            new_tokens=new_tokens,
            seed=seed,
            tolerance=tolerance,
            min_top1=min_top1,
            max_kl=max_kl,
            outputs_only=outputs_only,
        )
        errors = Console(stderr=True)  # what is printed may be for a program
        with bars(errors) if errors.is_terminal else nullcontext():
            found = run.validate(a, b, asked)
        if as_json:
            typer.echo(found.model_dump_json(indent=2))
        else:
            screen().print(terminal.rendered(found))
        if not found.equal:
            raise typer.Exit(report.DIFFERENT)


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
    if word.startswith("-") or word in ("run", "check", "explain", "schema", "inspect", "validate"):
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
    found = outlook.short(recipe)
    if found is not None:
        out.print(found)


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
    line = Text.assemble(
        (f"{signs[event.kind]} ", styles[event.kind]),
        f"{event.step:<24} ",
        (f"{words[event.kind]}{seconds}", styles[event.kind]),
        (f"  {event.detail}" if event.detail else "", "dim"),
    )
    return Text("\n").join([line, *map(outlook.caution, event.warnings)])


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s"
