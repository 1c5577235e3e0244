"""The searches of a recipe: the schemes that they will find, as far as that is known beforehand."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

from quantship.quant.scheme import Override, Scheme, unserved
from quantship.recipe import schemes
from quantship.recipe.findings import Finding
from quantship.recipe.keys import suggest
from quantship.recipe.language import QatStep, QuantizeStep, Recipe, SearchStep
from quantship.recipe.schemes import offered


def table(recipe: Recipe, found: Mapping[str, Scheme] | None = None) -> dict[str, Scheme]:
    """Every scheme that a step can name: rows, the recipe's own, and what its searches find.

    Args:
        recipe: With the names, inputs and schemes of its steps filled in.
        found: What searches have found, by their names; for one that is missing stands a scheme
            with all its candidates, which no search finds, to be checked in its place.
    """
    rows = schemes.table(recipe)
    expected = {
        str(step.name): provisional(step, rows)
        for step in recipe.steps
        if isinstance(step, SearchStep)
    }
    known = {name: scheme for name, scheme in expected.items() if scheme is not None}
    return rows | known | dict(found or {})


def provisional(step: SearchStep, rows: Mapping[str, Scheme]) -> Scheme | None:
    """A scheme in which every candidate occurs; None where the search is wrong."""
    base, candidates = rows.get(step.scheme or ""), candidates_of(step, rows)
    if base is None or len(candidates) < len(step.candidates):
        return None
    if any(unserved(one.weight, base.activation) for one in candidates.values()):
        return None
    overrides = [
        Override(layers="*", weight=one.weight, activation=base.activation)
        for one in candidates.values()
    ]
    changes = {
        "name": str(step.name),
        "weight": next(iter(candidates.values())).weight,
        "overrides": (*base.overrides, *overrides),
    }
    return base.model_copy(update=changes)


def candidates_of(step: SearchStep, rows: Mapping[str, Scheme]) -> dict[str, Scheme]:
    """The candidates of a search by name; those that there are."""
    return {name: rows[name] for name in step.candidates if name in rows}


def find_problems(recipe: Recipe, flawed: Collection[str]) -> Iterator[Finding]:
    """What is wrong with searches, and with where their schemes are named.

    Args:
        recipe: With the names, inputs and schemes of its steps filled in.
        flawed: Names of schemes of its own that could not be read, and are not in it.
    """
    rows = schemes.table(recipe)
    names = [str(step.name) for step in recipe.steps if isinstance(step, SearchStep)]
    for index, step in enumerate(recipe.steps):
        if isinstance(step, SearchStep):
            yield from _search_findings(index, step, rows, [*recipe.schemes, *flawed])
            names.remove(str(step.name))
        elif isinstance(step, QatStep | QuantizeStep) and step.scheme in names:
            message = f"step '{step.scheme}' comes later"
            remedy = "A step takes the scheme of a search that comes before it."
            yield Finding(("steps", index, "scheme"), message, remedy)


def _search_findings(
    index: int, step: SearchStep, rows: Mapping[str, Scheme], own: Collection[str]
) -> Iterator[Finding]:
    key = ("steps", index)
    if step.name in rows or step.name in own:
        message = f"the name '{step.name}' is taken by a scheme, and a search's is its scheme's"
        yield Finding((*key, "name"), message, "Choose another name.")
    base = rows.get(step.scheme or "")
    for number, name in enumerate(step.candidates):
        here = (*key, "candidates", number)
        if name not in rows and name not in own:
            remedy = suggest(name, [*own, *rows]) + offered(own)
            yield Finding(here, f"unknown scheme '{name}'", remedy)
        elif name in step.candidates[:number]:
            yield Finding(here, f"names '{name}' twice", "Name each candidate once.")
        elif name in rows and base is not None:
            reason = unserved(rows[name].weight, base.activation)
            if reason is not None:
                message = f"weights as in '{name}' do not go with inputs as in '{base.name}'"
                yield Finding(here, f"{message}: {reason.partition('; ')[0]}", "Leave it out.")
    yield from _constraint_findings(key, step, [*rows, *own])


def _constraint_findings(
    key: tuple[str, int], step: SearchStep, known: Collection[str]
) -> Iterator[Finding]:
    if isinstance(step.max_bytes, str) and step.max_bytes not in known:
        message = f"'{step.max_bytes}' is no size and no scheme"
        remedy = "Give a number of bytes, a size as 90 MB, or a scheme: as large as that."
        yield Finding((*key, "max_bytes"), message, remedy)
    if step.max_latency_ms is not None and step.runtime != "onnxruntime":
        message = (
            "times are measured on onnxruntime: on a CPU torchao makes floats of all codes before "
            "it multiplies, so that their format hardly matters"
        )
        yield Finding((*key, "runtime"), message, "Use `runtime: onnxruntime`.")
    if step.range != "percentile" and "percentile" in step.model_fields_set:
        message = f"percentile says nothing beside range {step.range}"
        remedy = "Set `range: percentile`, or leave it out."
        yield Finding((*key, "percentile"), message, remedy, unread=True)
