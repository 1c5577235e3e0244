from __future__ import annotations

import pytest

from quantship.data import class_names, holds_classes, labelled, questions
from quantship.data.source import Question
from quantship.errors import DataError

# A record of each task as the official archive has it; what a classifier reads; its class.
OFFICIAL = {
    "boolq": (
        {"question": "is it wet", "passage": "It is.", "idx": 0, "label": True},
        ("is it wet", "It is."),
        1,
    ),
    "cb": (
        {"premise": "It rains.", "hypothesis": "it is wet", "label": "neutral", "idx": 1},
        ("It rains.", "it is wet"),
        2,
    ),
    "rte": (
        {"premise": "It rains.", "hypothesis": "It is dry.", "label": "not_entailment", "idx": 1},
        ("It rains.", "It is dry."),
        1,
    ),
    "wic": (
        {"word": "bed", "sentence1": "A river bed.", "sentence2": "To bed.", "label": False},
        ("bed: A river bed.", "bed: To bed."),
        0,
    ),
    "wsc": (
        {
            "text": "Mark told Pete what he wrote.",
            "target": {"span1_index": 0, "span1_text": "Mark", "span2_text": "he"},
            "label": True,
        },
        ("Mark told Pete what he wrote.", "he: Mark"),
        1,
    ),
}
COPA = {
    "premise": "The man turned on the tap.",
    "choice1": "The toilet filled.",
    "choice2": "Water flowed.",
    "question": "effect",
    "label": 1,
}
MULTIRC = {
    "passage": {
        "text": "Susan had a party.",
        "questions": [
            {"question": "Who?", "answers": [{"text": "Bob", "label": 0}, {"text": "Susan"}]}
        ],
    }
}


@pytest.mark.parametrize("task", OFFICIAL)
def test_a_record_of_the_official_archive_is_read(write_lines, source, task):
    record, texts, label = OFFICIAL[task]
    given = source("superglue", task=task, path=write_lines(record))
    [one] = labelled(given)
    assert (one.texts, one.label) == (texts, label)
    [question] = questions(given)
    assert question.answer == label < len(question.choices) == len(class_names(given))
    assert all(str(record[key]) in question.prompt for key in record if key in ("word", "passage"))


@pytest.mark.parametrize(
    ("asked", "word"), [("effect", "therefore"), ("cause", "because")], ids=str
)
def test_a_cause_or_effect_goes_on_from_its_premise(write_lines, source, asked, word):
    path = write_lines({**COPA, "question": asked})
    given = source("superglue", task="copa", path=path)
    choices = (" the toilet filled.", " water flowed.")
    prompt = f"The man turned on the tap {word}"
    assert list(questions(given)) == [Question(prompt, choices, 1, f"{path}:1")]
    assert not holds_classes(given)


def test_every_answer_of_a_passage_is_a_record(write_lines, source):
    answers = [{"text": "Bob", "label": 0}, {"text": "Susan", "label": 1}]
    asked = [{"question": "Who?", "answers": answers}]
    path = write_lines({"passage": {"text": "Susan had a party.", "questions": asked}})
    given = source("superglue", task="multirc", path=path)
    assert [(one.texts, one.label) for one in labelled(given)] == [
        (("Susan had a party.", "Who? Bob"), 0),
        (("Susan had a party.", "Who? Susan"), 1),
    ]
    flat = {"paragraph": "Susan had a party.", "question": "Who?", "answer": "Bob", "label": 0}
    hub = source("superglue", task="multirc", path=write_lines(flat, name="hub.jsonl"))
    assert next(questions(hub)).prompt == next(questions(given)).prompt


@pytest.mark.parametrize(
    ("task", "record", "place", "says"),
    [
        ("boolq", {"question": "is it", "passage": "It is."}, "", "no 'label'; it has 'question'"),
        ("boolq", {**OFFICIAL["boolq"][0], "label": -1}, "", "kept secret"),
        ("cb", {**OFFICIAL["cb"][0], "label": "maybe"}, "", "'maybe' is no label; known are 0"),
        ("cb", {**OFFICIAL["cb"][0], "label": None}, "", "None is no label"),
        ("cb", {**OFFICIAL["cb"][0], "premise": 3}, "", "'premise' must be text"),
        ("cb", ["no object"], "", "must be an object, not list"),
        ("copa", {**COPA, "question": "why"}, "", "must be cause or effect, not 'why'"),
        ("copa", {**COPA, "label": 2}, "", "2 is no label; known are 0 (choice1), 1 (choice2)"),
        ("wsc", {**OFFICIAL["wsc"][0], "target": 3}, "", "no 'span1_text'"),
        ("multirc", MULTIRC, ": questions[0].answers[1]", "no 'label'; it has 'text'"),
    ],
)
def test_a_malformed_record_is_named(write_lines, read, task, record, place, says):
    path = write_lines("", record)
    with pytest.raises(DataError) as caught:
        read("superglue", task=task, path=path)
    assert caught.value.origin == f"{path}:2{place}"
    assert says in str(caught.value)
