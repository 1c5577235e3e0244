from __future__ import annotations

import json

import pytest

from quantship.errors import DataError

GOOD = {"question": "1 + 1?", "answer": "1 + 1 = <<1+1=2>>2\n#### 2"}


def test_a_record_becomes_a_question_and_its_whole_answer(write_lines, read):
    path = write_lines(GOOD)
    [example] = read("gsm8k", path=path)
    assert example.messages == (
        {"role": "user", "content": GOOD["question"]},
        {"role": "assistant", "content": GOOD["answer"]},
    )
    assert example.origin == f"{path}:1"
    assert not example.raw


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ('{"question": "open', "not JSON"),
        ("[" * 100_000, "not JSON"),
        (b'{"question": "\xff"}', "not UTF-8: byte 0xff at position 15"),
        ('["a", "list"]', "must be an object, not a list"),
        ({"question": "?"}, "key 'answer' is missing"),
        ({"question": 7, "answer": "7"}, "'question' must be text, not a whole number"),
        ({"question": "?", "answer": None}, "'answer' must be text, not null"),
        ({"question": "?", "answer": " \n"}, "'answer' is blank"),
        ('{"question": "?", "answer": "\\ud83d"}', "half a surrogate pair at character 0"),
    ],
)
def test_a_malformed_record_is_named_by_file_and_line(write_lines, read, line, says):
    path = write_lines(GOOD, "", line, GOOD)
    with pytest.raises(DataError) as caught:
        read("gsm8k", path=path)
    assert caught.value.origin.startswith(f"{path}:3")
    assert says in str(caught.value)


def test_records_before_a_malformed_one_are_still_to_be_had(write_lines, read):
    path = write_lines(GOOD, GOOD, "{")
    assert len(read("gsm8k", path=path, limit=2)) == 2


def test_a_byte_order_mark_and_dos_line_ends_do_no_harm(write_lines, read):
    path = write_lines(b"\xef\xbb\xbf" + json.dumps(GOOD).encode() + b"\r")
    assert len(read("gsm8k", path=path)) == 1


def test_a_line_separator_inside_a_text_does_not_shift_line_numbers(write_lines, read):
    odd = json.dumps({"question": "a\u2028b\x85c", "answer": "d"}, ensure_ascii=False)
    path = write_lines(odd, GOOD)
    assert [example.origin for example in read("gsm8k", path=path)] == [f"{path}:1", f"{path}:2"]


def test_a_file_that_cannot_be_read_is_named(tmp_path, read):
    with pytest.raises(DataError, match="cannot be read") as caught:
        read("gsm8k", path=tmp_path)
    assert caught.value.origin == str(tmp_path)


@pytest.mark.usefixtures("private_cache")
def test_the_hub_layout_is_read_without_a_path(tmp_path, monkeypatch, write_lines, read):
    # A folder of the data set's name, laid out as on the Hub, stands for it offline.
    folder = tmp_path / "openai" / "gsm8k"
    folder.mkdir(parents=True)
    write_lines(GOOD, GOOD, name="openai/gsm8k/test.jsonl")
    (folder / "README.md").write_text(
        "---\nconfigs:\n- config_name: main\n  data_files:\n"
        "  - split: test\n    path: test.jsonl\n---\n"
    )
    monkeypatch.chdir(tmp_path)
    examples = read("gsm8k", split="test")
    assert [example.messages[0]["content"] for example in examples] == [GOOD["question"]] * 2
    assert examples[1].origin == "openai/gsm8k test[1]"


@pytest.mark.parametrize(("name", "count"), [("train", 7473), ("test", 1319)])
def test_the_whole_set_is_read(shared_data, read, name, count):
    examples = read("gsm8k", path=shared_data / "gsm8k" / f"{name}.jsonl")
    assert len(examples) == count
    assert all("\n#### " in example.messages[1]["content"] for example in examples)
