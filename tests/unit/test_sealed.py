from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quantship import sealed

SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
VALUES = st.recursive(
    SCALARS.filter(lambda value: value not in (math.inf, -math.inf)),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=12,
)
OBJECTS = st.dictionaries(st.text().filter(lambda key: key != sealed.DIGEST), VALUES, max_size=4)


@given(OBJECTS, st.none() | st.just(2))
def test_what_was_written_is_read(values: dict[str, Any], indent: int | None) -> None:
    assert sealed.loads(sealed.dumps(values, indent=indent).encode()) == values


@given(OBJECTS.filter(bool), st.data())
def test_no_changed_byte_passes_for_another_value(values: dict[str, Any], data: Any) -> None:
    text = bytearray(sealed.dumps(values).encode())
    place = data.draw(st.integers(0, len(text) - 1))
    text[place] ^= 1 << data.draw(st.integers(0, 7))
    try:
        read = sealed.loads(bytes(text))
    except ValueError:
        return
    assert read == values  # a blank of another kind


def test_keys_become_texts_and_tuples_lists() -> None:
    text = sealed.dumps({"by_number": {10: (1, 2), 9: None}})
    assert sealed.loads(text.encode()) == {"by_number": {"10": [1, 2], "9": None}}


@pytest.mark.parametrize("text", ["", "[]", "null", "{}", '{"a": 1}', '{"digest": "a"}', "\xff"])
def test_what_has_no_digest_of_itself_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        sealed.loads(text.encode("latin-1"))


def test_a_value_with_the_digest_of_another_is_refused() -> None:
    one, other = (json.loads(sealed.dumps({"loss": loss})) for loss in (1.5, 1.25))
    with pytest.raises(ValueError, match="not what was written"):
        sealed.loads(json.dumps(one | {"loss": other["loss"]}).encode())


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_json_cannot_hold_is_refused(value: float) -> None:
    with pytest.raises(ValueError, match="JSON"):
        sealed.dumps({"loss": value})
