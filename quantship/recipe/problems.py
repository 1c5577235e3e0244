"""pydantic's errors in plain words, each at the file and line of the value that caused it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from quantship.errors import Problem
from quantship.recipe.keys import (
    annotated,
    choices,
    describe,
    discriminator,
    element,
    free_keys,
    models,
    named,
    suggest,
    takes_words,
    walk,
)
from quantship.recipe.language import Recipe
from quantship.recipe.yaml_source import Key, Value, dotted, locate

FILE_KEYS = ("extends", "profiles")
"""Keys of a recipe file that are used up before the recipe is made."""


@dataclass(frozen=True)
class Spot:
    """What the language says about a place in a recipe.

    Args:
        key: Path of the place, without the tags that pydantic puts in.
        annotation: What may stand there; None for a place the language does not know.
        field: The field whose value, or part of whose value, stands there.
        model: The mapping that the place is a key of.
    """

    key: Key
    annotation: Any
    field: FieldInfo | None
    model: type[BaseModel]


def spot(location: Sequence[str | int]) -> Spot:
    """The place that a pydantic error location means."""
    key: list[str | int] = []
    here: Any = Recipe
    field: FieldInfo | None = None
    model: type[BaseModel] = Recipe
    for part in location:
        known = models(here)
        if isinstance(part, int):
            here = element(here)
            key.append(part)
        elif "" in known:
            model = known[""]
            field = model.model_fields.get(part)
            here = free_keys(model) if field is None else annotated(field)
            key.append(part)
        elif part in known:
            here = model = known[part]
        elif named(here) is not None:
            here, field = named(here), None
            key.append(part)
        elif here is None:
            key.append(part)
    return Spot(tuple(key), here, field, model)


def explain_error(
    error: ErrorDetails, source: Value, written: Callable[[Key], Key] = lambda key: key
) -> Problem:
    """A problem that says what was given, what is allowed, and where.

    Args:
        error: One error of a pydantic ``ValidationError``.
        source: The recipe's keys as they were read.
        written: The key in ``source`` that a key of the error stands for.
    """
    where = spot(error["loc"])
    key, message, remedy = _words(error, where)
    key = written(key)
    place = locate(source, key)
    if place.file is None:
        message += " (from --set)"
    return Problem(message, place.file, place.line, dotted(key) or None, remedy)


def given(value: object) -> str:
    """A value in words: ``the text 'abc'``, ``a list``."""
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list | tuple):
        return "a list" if value else "an empty list"
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "true" if value else "false"
    short = str(value) if len(str(value)) <= 60 else f"{str(value)[:57]}..."
    return f"the text '{short}'" if isinstance(value, str) else f"the number {short}"


def _words(error: ErrorDetails, where: Spot) -> tuple[Key, str, str | None]:
    """Key, message and remedy."""
    kind, value, key = error["type"], error["input"], where.key
    meaning = _meaning(where)
    hint = suggest(str(value), _choices(where)).strip()
    if kind in ("union_tag_invalid", "union_tag_not_found"):
        return _wrong_tag(value, where)
    if kind == "extra_forbidden" or _is_stray(where):
        return key, "unknown key", _known_keys(str(key[-1]), where)
    if kind == "missing":
        return key, "is missing", meaning
    if kind == "value_error":
        message = error["msg"].removeprefix("Value error, ")
        return key, message, _sentences(hint, meaning)
    if kind == "too_short":
        least, found = error["ctx"]["min_length"], error["ctx"]["actual_length"]
        wanted = "one item" if least == 1 else f"{least} items"
        got = f"{found} of them" if found else "an empty list"
        return key, f"needs at least {wanted}, got {got}", meaning
    if kind == "string_pattern_mismatch":
        pattern = f"It must match {error['ctx']['pattern']}"
        return key, f"{given(value)} is not a valid value", _sentences(meaning, pattern)
    if kind == "string_too_long":
        limit = f"At most {error['ctx']['max_length']} characters"
        return key, f"{given(value)} is too long", _sentences(limit, meaning)
    if kind == "string_type" and isinstance(value, int | float):
        hint = "Put it in quotes to make it text"
    return key, f"expected {_expected(where)}, got {given(value)}", _sentences(hint, meaning)


def _is_stray(where: Spot) -> bool:
    """Whether a key is neither one of its mapping's nor of the form that free ones there have."""
    free = where.field is None and bool(where.key) and isinstance(where.key[-1], str)
    return free and free_keys(where.model) is not None and "." not in str(where.key[-1])


def _meaning(where: Spot) -> str | None:
    """What the language says that the place is for, on one line."""
    if where.field is None:
        below = models(where.annotation).get("")
        return f"Its keys: {', '.join(below.model_fields)}" if below is not None else None
    return " ".join((where.field.description or "").replace("``", "`").split()) or None


def _wrong_tag(value: Any, where: Spot) -> tuple[Key, str, str]:
    tag, tags = str(discriminator(where.annotation)), list(models(where.annotation))
    key, allowed = (*where.key, tag), f"Allowed: {', '.join(tags)}."
    if tag not in value:
        return key, "is missing", f"Give one of: {', '.join(tags)}."
    tried = value[tag]
    if not isinstance(tried, str):
        return key, f"expected a word, got {given(tried)}", allowed
    what, remedy = tag, suggest(tried, tags) + allowed
    if takes_words(where.annotation) and list(value) == [tag]:
        key, what = where.key, str(where.key[-1])  # where the word stands alone, the tag does not
    return key, f"unknown {what} '{tried}'", remedy


def _expected(where: Spot) -> str:
    field = where.field
    if field is None or where.annotation is None:
        return "a mapping with keys"
    whole = isinstance(where.key[-1], str)
    return describe(field if whole else FieldInfo.from_annotation(where.annotation))


def _choices(where: Spot) -> list[str]:
    return [] if where.annotation is None else choices(where.annotation)


def _known_keys(key: str, where: Spot) -> str:
    top = where.model is Recipe
    allowed = [*where.model.model_fields, *(FILE_KEYS if top else ())]
    homes = [path for path in walk(Recipe) if path.rpartition(".")[2] == key]
    elsewhere = f"It is a key elsewhere: {', '.join(homes[:4])}. " if homes else ""
    return f"{suggest(key, allowed) or elsewhere}Allowed here: {', '.join(allowed)}."


def _sentences(*parts: str | None) -> str | None:
    ended = [part if part.endswith((".", "?")) else f"{part}." for part in parts if part]
    return " ".join(ended) or None
