from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import pytest
from pydantic import Field

from quantship.frozen import Frozen
from quantship.recipe.keys import choices, default, describe, element, models, suggest, walk


class Cat(Frozen):
    kind: Literal["cat"]
    lives: Annotated[int, Field(ge=1, le=9)] = 9


class Dog(Frozen):
    kind: Literal["dog"]
    names: tuple[str, ...] = ()


Pet = Annotated[Cat | Dog, Field(discriminator="kind")]


class Home(Frozen):
    pets: tuple[Pet, ...] = ()
    owner: Pet | None = None
    address: Path
    warm: bool = True
    share: float | None = Field(default=None, gt=0, lt=1)
    colour: Literal["red", "blue"] | None = "red"
    notes: list[Path | int] = Field(default_factory=list)


@pytest.mark.parametrize(
    ("key", "words", "standing"),
    [
        ("pets", "list of: mapping with kind: cat | dog", "[]"),
        ("owner", "mapping with kind: cat | dog, or null", "null"),
        ("address", "path", None),
        ("warm", "true or false", "true"),
        ("share", "number, above 0, below 1, or null", "null"),
        ("colour", "red | blue, or null", "red"),
        ("notes", "list of: path or whole number", "[]"),
    ],
)
def test_fields_are_described(key: str, words: str, standing: str | None) -> None:
    field = Home.model_fields[key]
    assert (describe(field), default(field)) == (words, standing)


def test_walk_goes_below_lists_by_their_tags() -> None:
    below = [
        f"{place}{rest}"
        for place in ("pets", "owner")
        for rest in ("", ".cat", ".cat.kind", ".cat.lives", ".dog", ".dog.kind", ".dog.names")
    ]
    assert list(walk(Home)) == [*below, "address", "warm", "share", "colour", "notes"]


def test_mappings_are_told_apart_by_their_tags() -> None:
    assert models(Pet) == {"cat": Cat, "dog": Dog}
    assert models(Cat | None) == {"": Cat}
    assert models(int) == {}


def test_lists_and_choices_are_seen_through_null() -> None:
    assert element(tuple[int, ...] | None) is int
    assert element(int | None) is None
    assert choices(Literal["a", "b"] | None) == ["a", "b"]


def test_only_close_words_are_suggested() -> None:
    assert suggest("max_stps", ["max_steps", "seed"]) == "Did you mean max_steps? "
    assert suggest("zebra", ["max_steps", "seed"]) == ""
