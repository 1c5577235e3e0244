from __future__ import annotations

from contextlib import nullcontext

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from quantship.data import Example
from quantship.errors import DataError

ASK = {"role": "user", "content": "Hi"}
SAY = {"role": "assistant", "content": "Hello"}
ROLES = ("system", "user", "assistant")


def test_turns_are_taken_as_they_stand_without_other_keys(write_lines, read):
    system = {"role": "system", "content": "Be kind."}
    path = write_lines({"messages": [system, ASK, {**SAY, "name": "x"}, ASK, SAY], "id": 1})
    [example] = read("chat", path=path)
    assert example.messages == (system, ASK, SAY, ASK, SAY)


@pytest.mark.parametrize(
    ("messages", "place", "says"),
    [
        ("Hi", "", "'messages' must be a list, not text"),
        (["Hi"], ": messages[0]", "must be an object, not text"),
        ([ASK, {"role": "assistant"}], ": messages[1]", "key 'content' is missing"),
        ([ASK, {**SAY, "content": None}], ": messages[1]", "'content' must be text, not null"),
        ([ASK, {**SAY, "content": ""}], "", "messages[1]: the content of the assistant turn is"),
        ([{**ASK, "role": "tool"}, SAY], "", "messages[0]: unknown role 'tool'"),
        ([ASK], "", "no assistant turn"),
        ([], "", "no assistant turn"),
    ],
)
def test_a_malformed_chat_is_named_by_file_line_and_turn(write_lines, read, messages, place, says):
    path = write_lines({"messages": [ASK, SAY]}, {"messages": messages})
    with pytest.raises(DataError) as caught:
        read("chat", path=path)
    assert caught.value.origin == f"{path}:2{place}"
    assert says in str(caught.value)


def test_a_chat_source_needs_a_path(source):
    with pytest.raises(ValidationError, match="path"):
        source("chat")


@given(st.lists(st.fixed_dictionaries({"role": st.sampled_from(ROLES), "content": st.text()})))
def test_an_example_that_exists_is_sound(messages):
    sound = any(message["role"] == "assistant" for message in messages) and all(
        message["content"].strip() for message in messages
    )
    with nullcontext() if sound else pytest.raises(DataError, match=r"^here: "):
        Example(tuple(messages), "here")
