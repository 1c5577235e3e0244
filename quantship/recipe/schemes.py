"""The schemes that a recipe can name: the rows of the table, and its own."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator

from quantship.quant.scheme import SCHEMES, ActivationFormat, Scheme, WeightFormat, unserved
from quantship.recipe.findings import Finding
from quantship.recipe.keys import suggest
from quantship.recipe.language import AnyStep, QatStep, QuantizeStep, Recipe, SearchStep
from quantship.recipe.own_scheme import OwnScheme
from quantship.recipe.yaml_source import Key

NAME = r"[a-z0-9][a-z0-9_-]*"
"""What a scheme may be called; no dots, which would divide a dotted key."""


def table(recipe: Recipe) -> dict[str, Scheme]:
    """Every scheme that the recipe can name, by name; its faulty ones are left out."""
    own = {
        name: scheme.named(name)
        for name, scheme in recipe.schemes.items()
        if not any(_unserved(name, scheme))
    }
    return own | SCHEMES


def find_problems(recipe: Recipe, flawed: Collection[str]) -> Iterator[Finding]:
    """What is wrong with the recipe's own schemes, and where it names one that is not there.

    Args:
        recipe: As it was written, or with its steps filled in.
        flawed: Names of schemes of its own that could not be read, and are not in it.
    """
    for name, scheme in recipe.schemes.items():
        yield from _name_findings(name)
        yield from _unserved(name, scheme)
    own = [*recipe.schemes, *flawed]
    searched = [str(step.name or step.stage) for step in recipe.steps if _searches(step)]
    yield from _unknown(("scheme",), recipe.scheme, [*own, *searched])
    for index, step in enumerate(recipe.steps):
        if isinstance(step, QatStep | QuantizeStep) and step.scheme != recipe.scheme:
            yield from _unknown(("steps", index, "scheme"), step.scheme, [*own, *searched])
        elif isinstance(step, SearchStep):
            yield from _unknown(("steps", index, "scheme"), step.scheme, own)


def offered(own: Collection[str]) -> str:
    """The names that can stand where a scheme is named, as a sentence."""
    also = f", and this recipe's own: {', '.join(sorted(own))}" if own else ""
    return f"Schemes: {', '.join(sorted(SCHEMES))}{also}."


def _searches(step: AnyStep) -> bool:
    return isinstance(step, SearchStep)


def _unknown(key: Key, name: str | None, own: Collection[str]) -> Iterator[Finding]:
    if name is not None and name not in SCHEMES and name not in own:
        remedy = suggest(name, [*own, *SCHEMES]) + offered(own)
        yield Finding(key, f"unknown scheme '{name}'", remedy)


def _name_findings(name: str) -> Iterator[Finding]:
    key = ("schemes", name)
    if name in SCHEMES:
        message = f"the name '{name}' is taken by a row of the table"
        remedy = f"Choose another name; `base: {name}` starts from that row."
        yield Finding(key, message, remedy)
    elif not re.fullmatch(NAME, name):
        remedy = "Use small letters, digits, - and _, and begin with a letter or digit."
        yield Finding(key, f"'{name}' cannot be a scheme's name", remedy)


def _unserved(name: str, scheme: OwnScheme) -> Iterator[Finding]:
    """Pairings of weight and input that no runtime serves, each where it is written."""
    key: Key = ("schemes", name)
    pairs: list[tuple[Key, WeightFormat, ActivationFormat | None]] = [
        ((*key, "activation"), scheme.weight, scheme.activation)
    ]
    if scheme.activation is None:
        pairs = [((*key, "weight"), scheme.weight, None)]
    if scheme.embedding is not None:
        pairs.append(((*key, "embedding"), scheme.embedding, None))
    if scheme.head is not None and scheme.head != "embedding":
        pairs.append(((*key, "head"), scheme.head, None))
    for index, override in enumerate(scheme.overrides):
        if override.weight is not None:
            place = (*key, "overrides", index)
            pairs.append((place, override.weight, override.activation))
    for place, weight, activation in pairs:
        reason = unserved(weight, activation)
        if reason is not None:
            message, _, remedy = reason.partition("; ")
            yield Finding(place, message, f"{remedy[:1].upper()}{remedy[1:]}.")
