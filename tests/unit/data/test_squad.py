from __future__ import annotations

import json

import pytest

from quantship.errors import DataError


def document(**last_question: object) -> dict[str, object]:
    answer = {"text": "308", "answer_start": 4}
    first = {"question": "How many?", "answers": [answer, {"text": "just 308"}]}
    last = {"question": "Really?", "answers": [answer], **last_question}
    return {
        "data": [
            {"paragraphs": []},
            {"paragraphs": [{"context": "Was 308 points.", "qas": [first, last]}]},
        ]
    }


def test_every_question_gets_its_passage_and_its_first_answer(write_lines, read):
    path = write_lines(document(), name="squad.json")
    examples = read("squad", path=path)
    assert [message["content"] for example in examples for message in example.messages] == [
        "Was 308 points.\n\nHow many?",
        "308",
        "Was 308 points.\n\nReally?",
        "308",
    ]
    assert examples[1].origin == f"{path}: data[1].paragraphs[0].qas[1]"


@pytest.mark.parametrize(
    ("changes", "place", "says"),
    [
        ({"question": 3}, "", "'question' must be text, not a whole number"),
        ({"question": " "}, "", "'question' is blank"),
        ({"answers": {}}, "", "'answers' must be a list, not an object"),
        ({"answers": []}, "", "no answer"),
        ({"answers": [{"text": "a"}, {}]}, ".answers[1]", "key 'text' is missing"),
        ({"answers": ["308"]}, ".answers[0]", "must be an object, not text"),
    ],
)
def test_a_malformed_question_is_named_by_its_place(write_lines, read, changes, place, says):
    path = write_lines(document(**changes))
    with pytest.raises(DataError) as caught:
        read("squad", path=path)
    assert caught.value.origin == f"{path}: data[1].paragraphs[0].qas[1]{place}"
    assert says in str(caught.value)


def test_json_that_is_broken_is_named_by_line(write_lines, read):
    path = write_lines('{"data": [', "  {]", "]}")
    with pytest.raises(DataError) as caught:
        read("squad", path=path)
    assert caught.value.origin == f"{path}:2"


def test_bytes_that_are_not_utf8_are_named_by_line(write_lines, read):
    path = write_lines('{"data":', b'"\xc3("}')
    with pytest.raises(DataError, match="not UTF-8") as caught:
        read("squad", path=path)
    assert caught.value.origin == f"{path}:2"


@pytest.mark.usefixtures("private_cache")
def test_the_hub_layout_is_read_without_a_path(tmp_path, monkeypatch, read):
    folder = tmp_path / "rajpurkar" / "squad"
    folder.mkdir(parents=True)
    record = {"context": "Blue.", "question": "Colour?", "answers": {"text": ["blue", "Blue"]}}
    (folder / "validation.jsonl").write_text(json.dumps(record))
    monkeypatch.chdir(tmp_path)
    [example] = read("squad", split="validation")
    assert [message["content"] for message in example.messages] == ["Blue.\n\nColour?", "blue"]


def test_the_whole_set_is_read(shared_data, read):
    examples = read("squad", path=shared_data / "xquad" / "xquad.en.json")
    assert len(examples) == 1190
    contexts = {example.messages[0]["content"].rpartition("\n\n")[0] for example in examples}
    assert len(contexts) == 240
    assert all(
        example.messages[1]["content"] in example.messages[0]["content"] for example in examples
    )
