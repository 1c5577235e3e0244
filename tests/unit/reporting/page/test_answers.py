from __future__ import annotations

import pytest
import samples
from hypothesis import given
from hypothesis import strategies as st

from quantship.reporting.evidence_schema import SideBySide
from quantship.reporting.page import answers
from quantship.reporting.schema import Report

WORDS = st.lists(st.sampled_from(["a", "b", "c d", " ", "\n", "<b>"]), max_size=8).map("".join)


@given(WORDS, WORDS)
def test_nothing_of_an_answer_is_lost_and_what_is_the_same_is_the_beginning(
    answer: str, reference: str
) -> None:
    same, marked, rest = answers.compared(answer, reference)
    assert same + marked + rest == answer
    assert reference.split()[: len(same.split())] == same.split()
    if answer == reference:
        assert (same, marked, rest) == (answer, "", "")


@given(WORDS, WORDS)
def test_the_reference_does_not_go_on_with_what_is_marked(answer: str, reference: str) -> None:
    same, marked, _ = answers.compared(answer, reference)
    until = answers.PIECE.findall(same + marked)
    theirs = answers.PIECE.findall(reference)[: len(until)]
    assert (until == theirs) == (not marked)


def side(**said: str) -> Report:
    report = samples.whole()
    assert report.evidence is not None
    one = SideBySide(task="t", id="t[0]", prompt="What is it?", answers=said)
    return report.model_copy(
        update={"evidence": report.evidence.model_copy(update={"generations": [one]})}
    )


def test_models_with_the_same_answer_share_it_and_the_float_model_comes_first() -> None:
    names = {"ptq-w4a16-g32": "no", "finetune-onnx": "yes", "qat-w4a16-g32": "no"}
    (prompt,) = answers.prompts(side(**names, finetune="yes"))  # type: ignore[arg-type]
    assert [one.models for one in prompt.answers] == [
        ["finetune", "finetune-onnx"],
        ["ptq-w4a16-g32", "qat-w4a16-g32"],
    ]
    assert [one.marked for one in prompt.answers] == ["", "no"]


@pytest.mark.parametrize(
    ("said", "note", "marked"),
    [
        ("a b c", "", ""),
        ("a b", "ends where finetune goes on", ""),
        ("a b c d", "goes on where finetune ends", "d"),
        ("a x c", "differs from finetune at the mark", "x"),
        ("", "finetune says something", ""),
    ],
)
def test_how_an_answer_differs_is_said(said: str, note: str, marked: str) -> None:
    found = answers.prompts(side(**{"finetune": "a b c", "ptq-w4a16-g32": said}))[0].answers
    assert (found[-1].note, found[-1].marked) == (note, marked)


def test_without_a_float_model_the_first_answer_is_the_reference() -> None:
    (prompt,) = answers.prompts(side(one="a", two="b"))
    assert [one.models for one in prompt.answers] == [["one"], ["two"]]


def test_a_prompt_is_named_by_what_it_asks_not_by_its_template() -> None:
    report = samples.whole()
    assert [one.summary[:20] for one in answers.prompts(report)] == [
        "Natalia sold clips t",
        "What is a clip?",
    ]


def test_those_that_lost_most_come_first_and_what_is_left_out_is_counted() -> None:
    found = answers.lost(samples.whole())
    assert [one.model for one in found] == ["ptq-w4a16-g32", "qat-w4a16-g32", "ptq-w8a8-static"]
    assert [one.more for one in found] == [31, 9, 0]
