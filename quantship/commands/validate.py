"""``quantship validate``: two models held against each other."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from quantship.commands.arguments import AsJson, Debug
from quantship.console import bars_beside_the_output, screen, session


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
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Hold two models against each other: files, integers, outputs, greedy text.

    Tolerances that are not given follow from what the two have in common, and are shown.
    """
    with session(debug):
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
        with bars_beside_the_output():
            found = run.validate(a, b, asked)
        if as_json:
            typer.echo(found.model_dump_json(indent=2))
        else:
            screen().print(terminal.rendered(found))
        if not found.equal:
            raise typer.Exit(report.DIFFERENT)
