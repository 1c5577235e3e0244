from __future__ import annotations

import json

import pytest

from quantship.errors import DataError

RECORD = {"instruction": "Name the capital.", "input": "France", "output": "Paris"}


def turns(examples: list) -> list[list[tuple[str, str]]]:
    return [[(m["role"], m["content"]) for m in example.messages] for example in examples]


@pytest.mark.parametrize(
    ("changes", "before", "prompt"),
    [
        ({}, [], "Name the capital.\n\nFrance"),
        ({"input": ""}, [], "Name the capital."),
        ({"input": None}, [], "Name the capital."),
        ({"system": "Be short."}, [("system", "Be short.")], "Name the capital.\n\nFrance"),
        ({"text": "unread"}, [], "Name the capital.\n\nFrance"),
    ],
)
def test_an_instruction_and_its_input_are_one_turn(write_lines, read, changes, before, prompt):
    path = write_lines({**RECORD, **changes})
    expected = [[*before, ("user", prompt), ("assistant", "Paris")]]
    assert turns(read("alpaca", path=path)) == expected


def test_input_may_be_missing(write_lines, read):
    path = write_lines({"instruction": "Say hi.", "output": "Hi"})
    assert turns(read("alpaca", path=path)) == [[("user", "Say hi."), ("assistant", "Hi")]]


def test_a_list_is_read_as_lines_are(tmp_path, write_lines, read):
    lines = read("alpaca", path=write_lines(RECORD, RECORD))
    path = tmp_path / "alpaca.json"
    path.write_text(json.dumps([RECORD, RECORD], indent=2))
    found = read("alpaca", path=path)
    assert turns(found) == turns(lines)
    assert [example.origin for example in found] == [f"{path}:2", f"{path}:7"]


@pytest.mark.parametrize(
    ("record", "says"),
    [
        ({"input": "a", "output": "b"}, "key 'instruction' is missing"),
        ({"instruction": "a"}, "key 'output' is missing"),
        ({**RECORD, "instruction": " "}, "'instruction' is blank"),
        ({**RECORD, "output": ""}, "'output' is blank"),
        ({**RECORD, "input": 3}, "'input' must be text, not a whole number"),
        ("[]", "must be an object, not a list"),
        ("{", "not JSON"),
        (b'{"instruction": "\xff"}', "not UTF-8"),
    ],
)
def test_a_malformed_record_is_named(write_lines, read, record, says):
    path = write_lines(RECORD, record)
    with pytest.raises(DataError) as caught:
        read("alpaca", path=path)
    assert caught.value.origin == f"{path}:2"
    assert says in str(caught.value)
