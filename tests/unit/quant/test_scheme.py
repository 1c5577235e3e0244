from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from quantship.quant.scheme import SCHEMES, ActivationFormat, Scheme, WeightFormat


def test_each_scheme_is_found_by_its_own_name() -> None:
    assert SCHEMES
    assert all(name == scheme.name for name, scheme in SCHEMES.items())


def test_names_say_what_the_numbers_are() -> None:
    for name, scheme in SCHEMES.items():
        bits = f"w{scheme.weight.bits}a{scheme.activation.bits if scheme.activation else 16}"
        group = f"-g{scheme.weight.group_size}" if scheme.weight.group_size else ""
        assert name == bits + group


def test_every_scheme_quantizes_the_embedding() -> None:
    assert all(scheme.embedding is not None for scheme in SCHEMES.values())


@pytest.mark.parametrize("bits", [0, 1, 9, 16])
def test_codes_have_two_to_eight_bits(bits: int) -> None:
    with pytest.raises(ValidationError, match="bits"):
        WeightFormat(bits=bits)


@pytest.mark.parametrize("wrong", [{"bits": 4}, {"symmetric": True}])
def test_activations_that_nothing_computes_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        ActivationFormat(**wrong)


@pytest.mark.parametrize("group", [0, -32])
def test_groups_hold_something(group: int) -> None:
    with pytest.raises(ValidationError, match="group_size"):
        WeightFormat(bits=4, group_size=group)


def test_schemes_are_values() -> None:
    one = Scheme(name="x", weight=WeightFormat(bits=4, group_size=32))
    assert one == Scheme(name="x", weight=WeightFormat(bits=4, group_size=32))
    assert one != Scheme(name="x", weight=WeightFormat(bits=4, group_size=64))
    assert Scheme.model_validate_json(one.model_dump_json()) == one
    assert len({one, Scheme(name="x", weight=WeightFormat(bits=4, group_size=32))}) == 1
    with pytest.raises(ValidationError, match="frozen"):
        one.name = "y"
    with pytest.raises(ValidationError, match="zero_point"):
        Scheme.model_validate({**one.model_dump(), "zero_point": 0})
