"""What differs from a lock, as a terminal shows it."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from quantship.provenance.differences import Difference, Repeated

MODELS = ("tiny", "mlp", "head", "finetune", "qat", "quantize", "export")
"""Stages that leave models."""


def before(found: Sequence[Difference]) -> RenderableType:
    """What is not as the lock says, before the run starts."""
    if not found:
        return Text.assemble(("✓ ", "green"), "Data, models, packages and machine are the lock's.")
    table = Table(title="Not as the lock says", title_justify="left", box=None, pad_edge=False)
    for title in ("", "What", "Lock", "Here"):
        table.add_column(title, overflow="fold")
    for one in found:
        style = "bold red" if one.forbids else ""
        table.add_row(*(Text(cell, style) for cell in (one.kind, one.name, one.locked, one.here)))
    return table


def after(found: Sequence[Repeated], reused: Collection[str]) -> RenderableType:
    """Whether the run made what the lock says.

    Args:
        found: What became of each job.
        reused: Names of the jobs that did not run, since what they make was there.
    """
    models = [one for one in found if one.stage in MODELS]
    others = [one for one in found if one.stage not in MODELS]
    lines: list[RenderableType] = [
        _sum("Models", models, "codes, weights and graphs"),
        _sum("Data and results", others, "every sequence and every figure"),
    ]
    kept = [one for one in found if one.name in reused]
    if kept:
        lines.append(
            Text(
                f"{len(kept)} of {len(found)} jobs were not repeated, since what they make was "
                "there already; --artifacts NEW repeats all of them.",
                "dim",
            )
        )
    lines += [_unequal(one) for one in found if not one.is_equal]
    return Group(*lines)


def _sum(title: str, found: Sequence[Repeated], what: str) -> Text:
    equal = sum(one.is_equal for one in found)
    if equal == len(found):
        return Text.assemble(("✓ ", "green"), f"{title}: all {equal} are the lock's: {what}.")
    return Text.assemble(("✗ ", "bold red"), f"{title}: {equal} of {len(found)} are the lock's.")


def _unequal(one: Repeated) -> Text:
    said = [f"{name} {then} → {now}" for name, (then, now) in one.results.items()]
    if one.files:
        said.append(f"other content: {', '.join(one.files)}")
    return Text.assemble(("  ✗ ", "red"), f"{one.name}: {'; '.join(said)}")
