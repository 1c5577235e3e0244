from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quantship.data import wikitext
from quantship.errors import DataError

ARTICLES = (
    " \n = First = \n \n One . \n = 1 k = \n More . \n \n = = Part = = \n \n Words . \n \n",
    " = Second = \n \n Other words . \n",
)


def contents(examples: list) -> list[str]:
    return [message["content"] for example in examples for message in example.messages]


def test_articles_are_cut_at_titles_not_at_headings_or_formulas(write_lines, read):
    path = write_lines("".join(ARTICLES).removesuffix("\n"))
    examples = read("wikitext", path=path)
    assert contents(examples) == list(ARTICLES)
    assert [example.origin for example in examples] == [f"{path}:1", f"{path}:12"]
    assert all(example.raw for example in examples)


def test_text_without_titles_is_cut_at_line_ends(write_lines, read, monkeypatch):
    monkeypatch.setattr(wikitext, "LONGEST_CHARACTERS", 10)
    path = write_lines("abcdef", "ghijkl", "", "mnopqr", name="plain.txt")
    assert contents(read("wikitext", path=path)) == ["abcdef\nghijkl\n\n", "mnopqr\n"]


def test_a_file_without_a_word_holds_no_article(write_lines, read):
    assert read("wikitext", path=write_lines(" ", "", "\t")) == []


@given(st.lists(st.sampled_from([" \n", "\n", " = T = \n", " = = H = = \n", "words \n"])))
def test_examples_joined_are_the_text(lines):
    found = wikitext._articles((str(number), line) for number, line in enumerate(lines))
    text = "".join(lines)
    assert "".join(contents(list(found))) == (text if text.strip() else "")


def test_a_byte_that_is_not_utf8_is_named_by_line(write_lines, read):
    path = write_lines("fine", b"caf\xe9", "fine")
    with pytest.raises(DataError, match="not UTF-8") as caught:
        read("wikitext", path=path)
    assert caught.value.origin == f"{path}:2"


@pytest.mark.usefixtures("private_cache")
def test_the_hub_layout_gives_the_files_text(tmp_path, monkeypatch, read):
    folder = tmp_path / "Salesforce" / "wikitext"
    folder.mkdir(parents=True)
    lines = "".join(ARTICLES).splitlines(keepends=True)
    records = ({"text": line if line.strip() else ""} for line in lines)
    (folder / "test.jsonl").write_text("\n".join(map(json.dumps, records)))
    (folder / "README.md").write_text(
        "---\nconfigs:\n- config_name: wikitext-2-raw-v1\n  data_files:\n"
        "  - split: test\n    path: test.jsonl\n---\n"
    )
    monkeypatch.chdir(tmp_path)
    assert contents(read("wikitext", split="test")) == list(ARTICLES)


@pytest.mark.parametrize(("name", "words"), [("valid", 213_886), ("test", 241_211)])
def test_the_whole_set_is_read_to_the_character(shared_data, read, name, words):
    path = shared_data / "wikitext-2" / f"{name}.txt"
    found = contents(read("wikitext", path=path))
    assert len(found) == 60
    assert sum(len(text.split()) for text in found) == words
    assert "".join(found).encode() == path.read_bytes()
