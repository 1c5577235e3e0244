"""Will it be faster here? What the terminal says of a recipe's exports before anything runs."""

from __future__ import annotations

from collections.abc import Iterator

from rich.text import Text

from quantship import hardware
from quantship.exporters import advice
from quantship.recipe import consent, exports
from quantship.recipe.exports import Export
from quantship.recipe.language import Recipe

CAUTION = "yellow"
QUIET = "dim"


def full(recipe: Recipe) -> Text | None:
    """This machine, and of each export its lowering, why, and what to beware of; None: no exports.

    Args:
        recipe: As ``recipe.load`` returns it.
    """
    lines = [Text.assemble(("This machine: ", QUIET), f"{hardware.kind()}: {hardware.describe()}")]
    for export in exports.find(recipe):
        why = _reason(export)
        lines.append(Text.assemble((export.name, "bold"), f": {_form(export)}: {why}"))
        lines += [caution(line) for line in _warnings(export)]
    return Text("\n").join(lines) if len(lines) > 1 else None


def short(recipe: Recipe) -> Text | None:
    """One line an export: its lowering, and how much there is to beware of; None: no exports."""
    lines = list(_short_lines(recipe))
    return Text("\n").join(lines) if lines else None


def code(recipe: Recipe) -> Text | None:
    """What the recipe may run only with the user's leave; None: nothing."""
    needed = consent.needed(recipe)
    lines = [caution(f"{one}: quantship run asks for {consent.FLAG}") for one in needed]
    return Text("\n").join(lines) if lines else None


def caution(line: str) -> Text:
    """A warning as a line of the terminal, below what it is about."""
    return Text(f"  ! {line}", CAUTION)


def _short_lines(recipe: Recipe) -> Iterator[Text]:
    for export in exports.find(recipe):
        number = len(_warnings(export))
        words = f"{number} warning{'s' if number > 1 else ''}; quantship check shows them"
        note = Text(f"  {words}", CAUTION) if number else Text()
        yield Text.assemble(f"{export.name}: {_form(export)}", note)


def _form(export: Export) -> str:
    if export.lowering is None:
        return export.format
    form = f"{export.lowering} for {export.target}"
    return form if export.scheme is None else f"{export.scheme.name} as {form}"


def _reason(export: Export) -> str:
    if export.lowering is None:
        return "the format has a form of its own, the same for all machines"
    return advice.reason(export.lowering, export.scheme, export.target)


def _warnings(export: Export) -> tuple[str, ...]:
    if export.lowering is None:
        return ()
    return advice.warnings(export.lowering, export.scheme, export.target, hardware.kind())
