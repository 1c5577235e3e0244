from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quantship.data import rows
from quantship.data.fields import exchange
from quantship.data.parts import Holdout, Part, Reading, identity, sides
from quantship.data.source import Example, Labelled, Sample

SHARES = st.floats(0.01, 0.99)


def example(index: int, origin: str = "") -> Example:
    return Example(exchange(f"question {index}", "answer"), origin or f"file:{index}")


def split(source, share: float, seed: int, found: list) -> tuple[list, list]:
    holdout = Holdout(share, seed)
    kept, held_out = (Reading(Part(source, holdout, held_out=side)) for side in (False, True))
    return list(kept.take(found)), list(held_out.take(found))


@settings(deadline=None, max_examples=50)
@given(count=st.integers(0, 200), share=SHARES, seed=st.integers(0, 9), data=st.data())
def test_a_record_stays_on_its_side(source, count, share, seed, data):
    found = [example(index) for index in range(count)]
    kept, held_out = split(source("builtin"), share, seed, found)
    assert sorted([*kept, *held_out], key=found.index) == found
    # A file that has grown, sorted anew, its records on other lines.
    grown = [example(index, f"other:{index}") for index in range(count + 20)]
    later = split(source("builtin"), share, seed, data.draw(st.permutations(grown)))
    for before, after in zip((kept, held_out), later, strict=True):
        assert {one.messages[0]["content"] for one in before} <= {
            one.messages[0]["content"] for one in after
        }


@pytest.mark.parametrize("share", [0.01, 0.1, 0.5, 0.9])
def test_the_share_is_what_was_asked_for(source, share):
    count = 20_000
    _, held_out = split(source("builtin"), share, 0, [example(index) for index in range(count)])
    deviation = (share * (1 - share) * count) ** 0.5
    assert abs(len(held_out) - share * count) < 4 * deviation


def test_another_seed_holds_out_others(source):
    found = [example(index) for index in range(500)]
    one, again, other = (split(source("builtin"), 0.2, seed, found)[1] for seed in (0, 0, 1))
    assert one == again != other
    assert 0 < len({*map(str, one)} & {*map(str, other)}) < len(one)


def test_equal_records_never_part(source):
    found = [example(index % 50, f"file:{index}") for index in range(500)]
    kept, held_out = split(source("builtin"), 0.3, 0, found)
    said = [{one.messages[0]["content"] for one in side} for side in (kept, held_out)]
    assert len(said[0] | said[1]) == 50
    assert not said[0] & said[1]


def test_sides_are_counted_and_have_digests_of_what_they_say(source, write_lines):
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    lines = [{"messages": [*turns, {"role": "user", "content": str(i)}]} for i in range(40)]
    path, reordered = write_lines(*lines), write_lines(*lines[::-1], name="other.jsonl")
    facts = []
    for file in (path, reordered):
        given = source("chat", path=file)
        kept, [held_out] = sides([given], [], Holdout(0.3, 0))
        readings = [Reading(part) for part in (*kept, held_out)]
        for reading in readings:
            list(reading.take(rows(given)))
        facts.append([reading.facts() for reading in readings])
    [kept, held_out], others = facts
    assert kept["records"] == held_out["other_side"] > held_out["records"] == kept["other_side"] > 0
    assert kept["records"] + held_out["records"] == 40
    assert (kept["held_out"], held_out["held_out"]) == (False, True)
    assert kept["digests"] == held_out["digests"] != others[0]["digests"]
    assert kept["records_digest"] == others[0]["records_digest"]
    assert held_out["records_digest"] == others[1]["records_digest"] != kept["records_digest"]


def test_what_is_held_out_comes_after_what_is_given(source):
    train, given = [source("builtin"), source("builtin", seed=1)], [source("builtin", seed=2)]
    kept, evaluated = sides(train, given, Holdout(0.1, 0))
    assert [part.source.seed for part in kept] == [0, 1]
    assert [(part.source.seed, part.held_out) for part in evaluated] == [
        (2, False),
        (0, True),
        (1, True),
    ]
    assert sides(train, given, None) == ([*map(Part, train)], [*map(Part, given)])


def test_records_are_known_by_what_they_say():
    one = identity(Example(exchange("a", "b"), "x"))
    assert one == identity(Example(exchange("a", "b"), "y"))
    others = [
        identity(Example(exchange("ab", "b"), "x")),
        identity(Example(exchange("a", "bb"), "x")),
        identity(Example(({"role": "system", "content": "a"}, *exchange("a", "b")), "x")),
        identity(Labelled(("a", "b"), 0, "x")),
        identity(Labelled(("ab",), 0, "x")),
        identity(Sample(np.zeros(2, dtype=np.float32), 0)),
        identity(Sample(np.ones(2, dtype=np.float32), 0)),
    ]
    assert len({one, *others}) == 1 + len(others)


def test_a_text_with_two_classes_is_one_record():
    assert identity(Labelled(("a",), 0, "x")) == identity(Labelled(("a",), 1, "y"))
