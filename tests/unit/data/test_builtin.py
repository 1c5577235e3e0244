from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quantship.data import builtin
from quantship.data.builtin_families import families


def pairs(**options: object) -> list[tuple[str, str]]:
    found = builtin.rows(builtin.Options(adapter="builtin", **options))
    return [(e.messages[0]["content"], e.messages[1]["content"]) for e in found]


def test_equal_options_give_equal_examples():
    assert pairs(seed=3, num_examples=2000) == pairs(seed=3, num_examples=2000)
    assert pairs(seed=3, num_examples=100) == pairs(seed=3, num_examples=200)[:100]
    assert pairs(seed=3, num_examples=100) != pairs(seed=4, num_examples=100)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32), st.integers(0, 2**32), st.integers(1, 3000))
def test_train_and_eval_share_no_question_whatever_their_seeds(one, other, count):
    train = pairs(split="train", seed=one, num_examples=count)
    held_out = pairs(split="eval", seed=other, num_examples=count)
    assert len(train) == len(held_out) == count
    assert not {question for question, _ in train} & {question for question, _ in held_out}


@pytest.mark.parametrize(("split", "count"), [("train", 1242), ("eval", 192)])
def test_all_questions_come_before_any_comes_again(split, count):
    drawn = pairs(split=split, num_examples=2 * count)
    assert len(set(drawn[:count])) == count
    assert set(drawn[count:]) == set(drawn[:count])


def test_a_question_has_one_answer_and_both_are_short():
    every = [pair for family in families().values() for pair in family]
    assert len({question for question, _ in every}) == len(every)
    assert all(len((question + answer).encode()) <= 90 for question, answer in every)


def test_every_answer_asked_for_in_eval_is_taught_in_train():
    for name, family in families().items():
        taught = {answer for question, answer in family if builtin._split((question, "")) != "eval"}
        assert {answer for _, answer in family} == taught, name


def test_both_splits_hold_every_family():
    for split in ("train", "eval"):
        asked = {question for question, _ in pairs(split=split, num_examples=1242)}
        for name, family in families().items():
            assert asked & {question for question, _ in family}, (split, name)
