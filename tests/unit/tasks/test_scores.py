from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quantship.tasks import scores
from quantship.tasks.base import Example, Metric

ACCURACY = Metric("accuracy", "higher", "share", judges=True)
PERPLEXITY = Metric("perplexity", "lower", "perplexity")

numbers = st.floats(-1e6, 1e6)
texts = st.none() | st.text()
examples = st.lists(
    st.builds(
        Example,
        id=st.text(),
        values=st.fixed_dictionaries({"accuracy": numbers, "perplexity": numbers}),
        weight=st.floats(0.1, 1e3),
        prompt=texts,
        expected=texts,
        answer=texts,
    ),
    min_size=1,
    max_size=5,
)


@given(examples)
def test_what_was_written_is_read_to_the_bit(made: list[Example]) -> None:
    with TemporaryDirectory() as folder:
        scores.write(made, Path(folder))
        assert scores.read(Path(folder)) == made


def test_numbers_that_are_none_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        scores.write([Example("a", {"accuracy": math.nan})], tmp_path)


def test_a_mean_weighs_examples() -> None:
    made = [
        Example("a", {"accuracy": 1, "perplexity": 30.0}, 10),
        Example("b", {"accuracy": 1, "perplexity": 60.0}, 30),
    ]
    assert scores.mean(ACCURACY, made) == 2 / 40
    assert scores.mean(PERPLEXITY, made) == pytest.approx(math.exp(90 / 40))


def test_a_digest_is_of_the_questions_and_not_of_the_answers() -> None:
    one = Example("a", {"accuracy": 1}, prompt="2 + 2", expected="4", answer="4")
    answered = replace(one, answer="5", values={"accuracy": 0})
    assert scores.digest([one]) == scores.digest([answered])
    for other in (
        replace(one, id="b"),
        replace(one, prompt="2 + 3"),
        replace(one, expected="5"),
        replace(one, weight=2),
    ):
        assert scores.digest([one]) != scores.digest([other])
    assert scores.digest([one]) != scores.digest([one, one])
