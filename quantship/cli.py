"""The command line: its commands, each of which hands over to a room of its own."""

from __future__ import annotations

import io
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.text import Text

import quantship
import quantship.recipe as recipes
from quantship import examples, outlook, showing
from quantship.console import errors_shown, quiet_libraries, screen
from quantship.progress import bars
from quantship.recipe import explain as language
from quantship.recipe import shipped

if TYPE_CHECKING:
    from quantship.recipe import Recipe

app = typer.Typer(
    help="From a recipe to quantized models that ship: fine-tune, QAT, PTQ, ONNX, report.",
    epilog=examples.MAIN,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)

COMMANDS = ("run", "check", "explain", "schema", "inspect", "validate", "compare")
"""First words that stand for no recipe."""

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


@app.command(epilog=examples.INSPECT)
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


@app.command(epilog=examples.VALIDATE)
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


@app.command(epilog=examples.COMPARE)
def compare(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Runs to compare.")],
    html: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Also write a page with plots.")
    ] = None,
    markdown: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Also write it as Markdown.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
    debug: Debug = False,
) -> None:
    """Rank the models of several runs, and show in what the runs differ."""
    with errors_shown(debug):
        if not debug:
            quiet_libraries()
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
    if word.startswith("-") or word in COMMANDS:
        return False
    return Path(word).suffix in (".yaml", ".yml") or Path(word).exists() or word in shipped.names()


def _run(recipe: Recipe, artifacts: Path) -> None:
    from quantship import pipeline
    from quantship.reporting import terminal

    out = screen()
    with bars(out):
        result = pipeline.run(recipe, artifacts, lambda event: out.print(showing.event_line(event)))
    out.print()
    out.print(terminal.table(result.report))
    if result.report.ranking is not None:
        out.print(terminal.ranking(result.report.ranking, f"{recipe.name}: ranking"))
    out.print(Text.assemble("Report: ", (str(result.report_dir / "report.html"), "bold")))


def _show_plan(recipe: Recipe, artifacts: Path) -> None:
    from quantship import pipeline

    planned = pipeline.plan(recipe, artifacts)
    out = screen()
    out.print(showing.plan_table(planned))
    out.print(showing.plan_summary(planned))
    found = outlook.short(recipe)
    if found is not None:
        out.print(found)
