from __future__ import annotations

import pytest

from quantship.errors import DataError

HUMAN, GPT = {"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}


def chat(*turns: object) -> dict[str, object]:
    return {"id": "1", "conversations": list(turns)}


def test_speakers_become_roles(write_lines, read):
    system = {"from": "system", "value": "Be kind.", "weight": 0}
    [example] = read("sharegpt", path=write_lines(chat(system, HUMAN, GPT, HUMAN, GPT)))
    roles = [message["role"] for message in example.messages]
    assert roles == ["system", "user", "assistant", "user", "assistant"]
    assert [message["content"] for message in example.messages[:3]] == ["Be kind.", "Hi", "Hello"]


@pytest.mark.parametrize(
    ("record", "place", "says"),
    [
        ({"messages": []}, "", "key 'conversations' is missing"),
        (chat(), "", "no assistant turn"),
        (chat(HUMAN), "", "no assistant turn"),
        (chat(HUMAN, {"from": "bing", "value": "a"}), ": conversations[1]", "unknown speaker 'bi"),
        (chat(HUMAN, {"from": "gpt"}), ": conversations[1]", "key 'value' is missing"),
        (chat(HUMAN, {"value": "a"}), ": conversations[1]", "key 'from' is missing"),
        (chat("Hi", GPT), ": conversations[0]", "must be an object, not text"),
        (chat(HUMAN, {"from": "gpt", "value": " "}), "", "the content of the assistant turn is b"),
        (chat(HUMAN, {"from": "gpt", "value": "\ud800"}), "", "half a surrogate pair"),
    ],
)
def test_a_malformed_chat_is_named(write_lines, read, record, place, says):
    path = write_lines(chat(HUMAN, GPT), record)
    with pytest.raises(DataError) as caught:
        read("sharegpt", path=path)
    assert caught.value.origin == f"{path}:2{place}"
    assert says in str(caught.value)
