from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import pytest
from pydantic import Field

from quantship.frozen import Frozen
from quantship.quant.scheme import WeightFormat
from quantship.recipe.keys import (
    annotated,
    choices,
    default,
    describe,
    element,
    generic,
    held,
    models,
    named,
    suggest,
    walk,
)


class Cat(Frozen):
    kind: Literal["cat"]
    lives: Annotated[int, Field(ge=1, le=9)] = 9


class Dog(Frozen):
    kind: Literal["dog"]
    names: tuple[str, ...] = ()


Pet = Annotated[Cat | Dog, Field(discriminator="kind")]


class Room(Frozen):
    width: WeightFormat | Literal["same"] | None = None
    length: WeightFormat = WeightFormat(bits=4, symmetric=False)


class House(Frozen):
    rooms: dict[str, Room] = Field(default_factory=dict)
    owner: Annotated[str, Field(json_schema_extra={"anyOf": [{"enum": ["me"]}, {}]})] = "me"


class Home(Frozen):
    pets: tuple[Pet, ...] = ()
    owner: Pet | None = None
    address: Path
    warm: bool = True
    share: float | None = Field(default=None, gt=0, lt=1)
    colour: Literal["red", "blue"] | None = "red"
    notes: list[Path | int] = Field(default_factory=list)
    strength: Annotated[float, Field(ge=0, le=1)] | Literal["searched"] = "searched"


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
        ("strength", "number, at least 0, at most 1, or searched", "searched"),
    ],
)
def test_fields_are_described(key: str, words: str, standing: str | None) -> None:
    field = Home.model_fields[key]
    assert (describe(field), default(field)) == (words, standing)


def test_what_stands_under_a_free_name_is_seen() -> None:
    rooms = annotated(House.model_fields["rooms"])
    assert named(rooms) is held(rooms) is Room
    assert named(Pet) is None
    assert describe(House.model_fields["rooms"]) == "names, each with a mapping"
    assert default(House.model_fields["rooms"]) == "{}"
    below = [key for key in walk(House) if key.count(".") < 3]
    assert below == ["rooms", "rooms.NAME", "rooms.NAME.width", "rooms.NAME.length", "owner"]
    assert generic("rooms.kitchen.width", House) == "rooms.NAME.width"
    assert generic("rooms.kitchen", House) == "rooms.NAME"
    assert [generic(key, House) for key in ("rooms", "rooms.", "owner")] == [
        *("rooms", "rooms.", "owner")
    ]


def test_a_format_is_a_mapping_or_float() -> None:
    width, length = Room.model_fields["width"], Room.model_fields["length"]
    assert (describe(width), default(width)) == ("mapping | same, or float", "float")
    assert (describe(length), default(length)) == ("mapping", "{bits: 4, symmetric: false}")


def test_some_of_the_choices_can_be_listed() -> None:
    assert choices(annotated(House.model_fields["owner"])) == ["me"]


def test_walk_goes_below_lists_by_their_tags() -> None:
    below = [
        f"{place}{rest}"
        for place in ("pets", "owner")
        for rest in ("", ".cat", ".cat.kind", ".cat.lives", ".dog", ".dog.kind", ".dog.names")
    ]
    assert list(walk(Home)) == [*below, "address", "warm", "share", "colour", "notes", "strength"]


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
