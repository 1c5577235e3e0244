"""A validation on a terminal of 100 columns or more."""

from __future__ import annotations

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from quantship.reporting.formatting import DASH, number, percent, size, small
from quantship.validation.report import Check, Continuation, Side, Validation

QUIET = "dim"
MOST_SHOWN = 10
"""Differences that are named one by one."""


def rendered(found: Validation) -> RenderableType:
    """Everything that was found, the verdict last."""
    parts: list[RenderableType] = [_sides(found)]
    named = [str(one) for part in found.numbers for one in (*part.unreadable, *part.different)]
    if named:
        parts.append(Text("\nStored numbers that differ", style="bold"))
        parts += [Text(f"  {line}") for line in named[:MOST_SHOWN]]
        if len(named) > MOST_SHOWN:
            parts.append(Text(f"  and {len(named) - MOST_SHOWN:,} more; --json has all", QUIET))
    if found.outputs:
        parts += [Text(""), _outputs(found)]
    if found.perplexity is not None:
        a, b = found.perplexity
        parts.append(Text(f"Perplexity {number(a)} in A, {number(b)} in B; {found.inputs}", QUIET))
    elif found.outputs:
        parts.append(Text(f"Fed with {found.inputs}", QUIET))
    if found.continuation is not None:
        parts += [Text(""), *_continuation(found.continuation)]
    parts += [Text(""), *(_check(check) for check in found.checks), _verdict(found)]
    return Group(*parts)


def _sides(found: Validation) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for title in ("", "A", "B"):
        table.add_column(title, overflow="fold")
    sides = (found.a, found.b)
    table.add_row("Model", *(Text(side.path) for side in sides))
    table.add_row("Kind", *(Text(_kind(side)) for side in sides))
    table.add_row("Arithmetic", *(Text(side.arithmetic or DASH) for side in sides))
    table.add_row("Weights", *(Text(size(side.size_bytes)) for side in sides))
    return table


def _kind(side: Side) -> str:
    return side.kind if side.scheme is None else f"{side.kind}, {side.scheme}"


def _outputs(found: Validation) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("Output", overflow="fold")
    table.caption = "Relative, worst: in standard deviations of A's numbers. KL: nats a position."
    table.caption_justify = "left"
    titles = (
        *("Positions", "Max |Δ|", "Mean |Δ|", "Relative", "Worst", "Top-1 %"),
        *("KL(A || B)", "KL(B || A)"),
    )
    for title in titles:
        table.add_column(title, justify="right", no_wrap=True)
    for one in found.outputs:
        table.add_row(
            Text(one.output),
            f"{one.positions:,}",
            small(one.max_abs_diff),
            small(one.mean_abs_diff),
            small(one.relative),
            small(one.worst_relative),
            percent(one.top1_agreement),
            small(one.kl_ab_nats),
            small(one.kl_ba_nats),
        )
    return table


def _continuation(found: Continuation) -> list[Text]:
    new, first = len(found.a), found.first_difference
    same = f"all {new} new tokens are the same" if first is None else f"new token {first} differs"
    title = f"Greedy continuation of {found.prompt_tokens} tokens: {same}"
    lines = [Text(title, style="bold")]
    for label, tokens, text in (("A", found.a, found.text_a), ("B", found.b, found.text_b)):
        said = " ".join(map(str, tokens)) if text is None else repr(text)
        lines.append(Text(f"  {label}  {said}"))
    if first is not None:
        lines.append(Text(f"  token {first}: {found.a[first]} in A, {found.b[first]} in B", QUIET))
    return lines


def _check(check: Check) -> Text:
    sign, style = ("✓", "green") if check.passed else ("✗", "bold red")
    return Text.assemble(
        (f"{sign} ", style), f"{check.name}: ", (check.detail, "" if not check.passed else QUIET)
    )


def _verdict(found: Validation) -> Text:
    if found.equal:
        return Text.assemble(("Equal within tolerance", "bold green"), f" ({found.tolerance.why})")
    failed = dict.fromkeys(check.name for check in found.checks if not check.passed)
    return Text.assemble(("Different", "bold red"), f": {', '.join(failed)}")
