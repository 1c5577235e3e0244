from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quantship.data import squad as data
from quantship.tasks import squad
from quantship.tasks.base import Context, Subject

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize(
    ("answer", "right", "f1", "exact"),
    [
        ("308", ["308"], 1, 1),
        ("The  Denver Broncos!", ["Denver Broncos"], 1, 1),
        ("an apple", ["Apple."], 1, 1),
        ("the Broncos", ["Denver Broncos"], 2 / 3, 0),
        ("Denver Denver", ["Denver Broncos"], 0.5, 0),
        ("gold", ["silver", "shining gold", "gold"], 1, 1),
        ("bronze", ["silver", "gold"], 0, 0),
        ("", ["silver"], 0, 0),
        ("the", ["a"], 0, 1),  # nothing is left of either, as in SQuAD's own script
    ],
)
def test_words_are_compared_as_squads_own_script_does(
    answer: str, right: list[str], f1: float, exact: float
) -> None:
    assert squad.judge(answer, right) == {"f1": pytest.approx(f1), "exact_match": exact}


words = st.lists(st.sampled_from(["Gold", "the", "silver,", "a", "bronze"]), max_size=6).map(
    " ".join
)


@given(one=words, other=words)
def test_f1_is_symmetric_between_0_and_1_and_1_for_equals(one: str, other: str) -> None:
    assert squad.f1(one, other) == pytest.approx(squad.f1(other, one))
    assert 0 <= squad.f1(one, other) <= 1
    if squad.normalized(one):
        assert squad.f1(one, one) == squad.exact(one, one) == 1
    if squad.exact(one, other) and squad.normalized(one):
        assert squad.f1(one, other) == 1


@pytest.mark.parametrize("form", ["torch", "onnxruntime"])
def test_all_right_answers_are_known_and_the_rest_is_told(
    subjects: dict[str, Subject], context: Callable[..., Context], tmp_path: Path, form: str
) -> None:
    answers = [{"text": text} for text in ("gold", "the gold", "gold")]
    asked = [{"question": f"What is number {n}?", "answers": answers} for n in range(3)]
    document = {"data": [{"paragraphs": [{"context": "All is gold.", "qas": asked}]}]}
    path = tmp_path / "dev.json"
    path.write_text(json.dumps(document))
    options = squad.Options.model_validate(
        {
            "task": "squad",
            "source": {"adapter": "squad", "path": str(path)},
            "limit": 2,
            "max_new_tokens": 5,
        }
    )
    outcome = squad.evaluate(subjects[form], options, context())
    first, second = outcome.examples
    assert first.expected == second.expected == "gold | the gold"
    assert second.prompt == "All is gold.\n\nWhat is number 1?"
    assert first.id != second.id
    assert first.values == squad.judge(str(first.answer), ["gold"])
    assert len(str(first.answer)) <= 5


def test_the_validation_split_is_meant_unless_another_is_named() -> None:
    made = squad.Options.model_validate
    assert made({"task": "squad", "source": {"adapter": "squad"}}).source.split == "validation"
    assert made({"task": "squad"}).source.split == "validation"


def test_right_answers_of_the_whole_set_are_right(shared_data: Path) -> None:
    source = data.Options(adapter="squad", path=shared_data / "xquad" / "xquad.en.json")
    asked: list[Any] = list(data.asked(source))
    assert len(asked) == 1190
    assert all(one.answers[0] in one.context for one in asked)
    found = [squad.judge(one.answers[0], one.answers) for one in asked]
    assert all(one == {"f1": 1, "exact_match": 1} for one in found)
