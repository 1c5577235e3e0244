from __future__ import annotations

import sys

import datasets
import pytest
from pydantic import ValidationError

from quantship.errors import DataError

CHAT = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]


@pytest.fixture
def saved(tmp_path):
    """Save columns with ``save_to_disk``, as a train split where asked."""

    def save(columns: dict[str, list], split: str | None = None):
        dataset = datasets.Dataset.from_dict(columns)
        path = tmp_path / "saved"
        (datasets.DatasetDict({split: dataset}) if split else dataset).save_to_disk(path)
        return str(path)

    return save


def contents(examples: list) -> list[str]:
    return [message["content"] for example in examples for message in example.messages]


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        ({"messages": [CHAT]}, ["Hi", "Hello"]),
        ({"prompt": ["Hi"], "completion": ["Hello"]}, ["Hi", "Hello"]),
        ({"prompt": [CHAT[:1]], "completion": [CHAT[1:]]}, ["Hi", "Hello"]),
        ({"prompt": ["no"], "completion": ["no"], "messages": [CHAT]}, ["Hi", "Hello"]),
        ({"text": ["running"]}, ["running"]),
    ],
)
def test_columns_are_found_by_their_usual_names(saved, read, columns, expected):
    examples = read("hub", dataset=saved(columns))
    assert contents(examples) == expected
    assert [example.raw for example in examples] == ["text" in columns]


@pytest.mark.parametrize(
    ("named", "expected"),
    [
        ({"messages": "chat"}, ["Hi", "Hello"]),
        ({"prompt": "q", "completion": "a"}, ["ask", "answer"]),
        ({"text": "q"}, ["ask"]),
    ],
)
def test_columns_of_other_names_are_read_where_named(saved, read, named, expected):
    path = saved({"chat": [CHAT], "q": ["ask"], "a": ["answer"], "text": ["unread"]})
    assert contents(read("hub", dataset=path, **named)) == expected


def test_blank_rows_of_running_text_are_passed_over(saved, read):
    examples = read("hub", dataset=saved({"text": ["one", "", " \n", "two"]}))
    assert [example.origin.rpartition(" ")[2] for example in examples] == ["train[0]", "train[3]"]


def test_a_split_of_a_saved_dictionary_is_read(saved, read):
    path = saved({"text": ["one"]}, split="held_out")
    assert contents(read("hub", dataset=path, split="held_out")) == ["one"]
    with pytest.raises(DataError, match="no split 'train'; it has held_out"):
        read("hub", dataset=path)


@pytest.mark.usefixtures("private_cache")
def test_a_folder_of_data_files_is_read(tmp_path, write_lines, read):
    (tmp_path / "files").mkdir()
    write_lines({"text": "one"}, {"text": "two"}, name="files/train.jsonl")
    assert contents(read("hub", dataset=str(tmp_path / "files"), limit=1)) == ["one"]


@pytest.mark.parametrize(
    ("columns", "named", "says"),
    [
        ({"q": ["ask"]}, {}, "no column messages, or prompt and completion, or text; it has q"),
        ({"q": ["ask"]}, {"prompt": "q", "completion": "a"}, "no column a; it has q"),
        ({"text": [7]}, {}, "'text' must be text, not a whole number"),
        ({"messages": ["Hi"]}, {}, "'messages' must be a list, not text"),
        ({"prompt": ["?"], "completion": [None]}, {}, "'completion' must be text, not null"),
        ({"prompt": ["?"], "completion": [""]}, {}, "the assistant turn is blank"),
    ],
)
def test_a_record_that_cannot_be_used_is_named(saved, read, columns, named, says):
    path = saved(columns)
    with pytest.raises(DataError) as caught:
        read("hub", dataset=path, **named)
    assert caught.value.origin == f"{path} train[0]"
    assert says in str(caught.value)


@pytest.mark.parametrize(
    "named", [{"prompt": "q"}, {"completion": "a"}, {"messages": "m", "text": "t"}]
)
def test_half_a_form_or_two_forms_are_refused_at_once(source, named):
    with pytest.raises(ValidationError, match="name the columns"):
        source("hub", dataset="me/it", **named)


def test_progress_bars_of_the_library_are_left_as_they_were(saved, read, monkeypatch):
    path = saved({"text": ["one"]})
    module = sys.modules["datasets.utils.tqdm"]
    monkeypatch.setattr(module, "HF_DATASETS_DISABLE_PROGRESS_BARS", None)
    monkeypatch.setattr(module, "_hf_datasets_progress_bars_disabled", False)
    read("hub", dataset=path)
    assert not datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    read("hub", dataset=path)
    assert datasets.are_progress_bars_disabled()
