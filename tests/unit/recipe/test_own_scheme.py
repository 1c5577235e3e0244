from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from quantship.quant.scheme import SCHEMES, ActivationFormat, Override, Scheme, WeightFormat
from quantship.recipe.own_scheme import OwnScheme


def made(**keys: Any) -> Scheme:
    return OwnScheme.model_validate(keys).named("mine")


def row(name: str, **changes: Any) -> Scheme:
    return SCHEMES[name].model_copy(update={"name": "mine", **changes})


def test_it_says_all_that_a_scheme_says() -> None:
    assert OwnScheme.model_fields.keys() - {"base"} == Scheme.model_fields.keys() - {"name"}


def test_from_scratch_it_has_the_defaults_of_a_scheme() -> None:
    assert made(weight={"bits": 5}) == Scheme(name="mine", weight=WeightFormat(bits=5))


@pytest.mark.parametrize("name", SCHEMES)
def test_a_base_alone_is_that_row(name: str) -> None:
    assert made(base=name) == row(name)


@pytest.mark.parametrize("name", SCHEMES)
def test_a_row_written_out_is_that_row(name: str) -> None:
    assert made(**SCHEMES[name].model_dump(mode="json", exclude={"name"})) == row(name)


@pytest.mark.parametrize("name", SCHEMES)
def test_its_dump_is_itself(name: str) -> None:
    override = {"layers": "*.0.*", "weight": {"bits": 8}}
    own = OwnScheme.model_validate({"base": name, "embedding": "float", "overrides": [override]})
    assert OwnScheme.model_validate(own.model_dump(mode="json")) == own
    assert OwnScheme.model_validate_json(own.model_dump_json()) == own


GROUPS_OF_64 = WeightFormat(bits=4, group_size=64, scale_dtype="bfloat16")
CHANNELS = WeightFormat(bits=4, granularity="per_channel", scale_dtype="bfloat16")
PER_TENSOR = ActivationFormat(granularity="per_tensor")
SYMMETRIC = ActivationFormat(symmetric=True)
ASYMMETRIC_8 = WeightFormat(bits=8, symmetric=False)
GROUPS_OF_8 = WeightFormat(bits=8, group_size=8)


@pytest.mark.parametrize(
    ("base", "change", "meant"),
    [
        ("w4a16-g32", {"weight": {"group_size": 64}}, {"weight": GROUPS_OF_64}),
        ("w4a16-g32", {"weight": {"granularity": "per_channel"}}, {"weight": CHANNELS}),
        ("w8a16", {"weight": {"group_size": 8}}, {"weight": GROUPS_OF_8}),
        ("w8a16", {"weight": {"symmetric": False}}, {"weight": ASYMMETRIC_8}),
        ("w8a8", {"activation": "float"}, {"activation": None}),
        ("w8a8", {"activation": None}, {"activation": None}),
        ("w8a8", {"activation": {"symmetric": True}}, {"activation": SYMMETRIC}),
        ("w8a8-static", {"activation": {"ranges": "dynamic"}}, {"activation": PER_TENSOR}),
        ("w8a16", {"activation": {}}, {"activation": ActivationFormat()}),
        ("w8a8", {"embedding": "float"}, {"embedding": None}),
        ("w8a8", {"embedding": {"group_size": 8}}, {"embedding": GROUPS_OF_8}),
        ("w8a8-linear", {"embedding": {"bits": 4}}, {"embedding": WeightFormat(bits=4)}),
        ("w8a8", {"head": "float"}, {"head": None}),
        ("w8a8", {"head": {"bits": 4}}, {"head": WeightFormat(bits=4)}),
        ("w8a8", {"head": "embedding"}, {}),
    ],
)
def test_a_change_leaves_the_rest_of_the_row(
    base: str, change: dict[str, Any], meant: dict[str, Any]
) -> None:
    assert made(base=base, **change) == row(base, **meant)


def test_overrides_come_after_those_of_the_base(monkeypatch: pytest.MonkeyPatch) -> None:
    first = Override(layers="*", weight=None)
    second = Override(layers="*.down_proj", weight=WeightFormat(bits=8))
    monkeypatch.setitem(SCHEMES, "w8a8", SCHEMES["w8a8"].model_copy(update={"overrides": (first,)}))
    own = OwnScheme.model_validate({"base": "w8a8", "overrides": [second.model_dump()]})
    assert own.named("mine").overrides == (first, second)
    assert OwnScheme.model_validate(own.model_dump()) == own


@pytest.mark.parametrize(
    ("keys", "place"),
    [
        ({}, ("weight",)),
        ({"weight": "float"}, ("weight",)),
        ({"weight": {"bits": 9}}, ("weight", "bits")),
        ({"weight": {"bits": 8, "granularity": "per_group"}}, ("weight",)),
        ({"base": "w8a9"}, ("base",)),
        ({"base": 8}, ("base",)),
        ({"base": []}, ("base",)),
        ({"base": "w8a9", "weight": {"group_size": 64}}, ("base",)),
        ({"base": "w8a8", "head": {"bits": 1}}, ("head", "bits")),
        ({"base": "w8a8", "head": "flaot"}, ("head",)),
        ({"base": "w8a8", "head": 8}, ("head",)),
        ({"base": "w8a8", "activation": {"ranges": "static"}}, ("activation",)),
        ({"base": "w8a8", "overrides": 5}, ("overrides",)),
        ({"base": "w8a8", "overrides": [{"layers": "*"}]}, ("overrides", 0, "weight")),
        ({"base": "w8a8", "name": "mine"}, ("name",)),
    ],
)
def test_what_is_wrong_is_told_once_and_where_it_stands(
    keys: dict[str, Any], place: tuple[str | int, ...]
) -> None:
    with pytest.raises(ValidationError) as caught:
        OwnScheme.model_validate(keys)
    assert [error["loc"] for error in caught.value.errors()] == [place]
