from __future__ import annotations

import itertools

import pytest
from pydantic import ValidationError

from quantship.data import (
    class_names,
    holds_classes,
    holds_questions,
    hub_dataset,
    local_files,
    rows,
)


def test_limit_stops_before_the_next_record_is_read(write_lines, source):
    good = {"question": "?", "answer": "!"}
    path = write_lines(good, good, "broken")
    assert len(list(rows(source("gsm8k", path=path, limit=2)))) == 2


def test_an_endless_source_is_read_as_far_as_asked(source):
    found = rows(source("builtin", num_examples=10**12))
    assert len(list(itertools.islice(found, 5))) == 5


@pytest.mark.parametrize("name", ["gsm8k", "mbpp", "squad", "wikitext"])
def test_a_source_reads_its_file_or_its_hub_data_set(source, name):
    given = source(name, path="some/file", revision="abc")
    assert [path.as_posix() for path in local_files(given)] == ["some/file"]
    assert hub_dataset(given) is None
    remote = source(name, revision="abc")
    assert local_files(remote) == ()
    dataset, revision = hub_dataset(remote) or ("", "")
    assert dataset.endswith(f"/{name}")
    assert revision == "abc"


@pytest.mark.parametrize(
    ("name", "task", "dataset"),
    [("glue", "rte", "nyu-mll/glue"), ("superglue", "rte", "aps/super_glue")],
)
def test_a_task_is_read_from_its_file_or_from_the_hub(source, name, task, dataset):
    given = source(name, task=task, path="some/file.tsv")
    assert [path.as_posix() for path in local_files(given)] == ["some/file.tsv"]
    assert hub_dataset(given) is None
    assert hub_dataset(source(name, task=task)) == (dataset, "main")
    assert holds_questions(given)
    assert class_names(given) == ("entailment", "not_entailment")


def test_chats_hold_neither_questions_nor_classes(source):
    given = source("builtin")
    assert (holds_questions(given), holds_classes(given), class_names(given)) == (False, False, ())


def test_a_hub_source_is_local_where_it_names_a_folder(source, tmp_path):
    (tmp_path / "b").mkdir()
    files = (tmp_path / "a.jsonl", tmp_path / "b" / "c.jsonl")
    for file in files:
        file.write_text("{}")
    local = source("hub", dataset=str(tmp_path))
    assert local_files(local) == files
    assert hub_dataset(local) is None
    assert hub_dataset(source("hub", dataset="me/it")) == ("me/it", "main")


def test_builtin_reads_no_file_and_nothing_from_the_hub(source):
    assert hub_dataset(source("builtin")) is None
    assert local_files(source("builtin")) == ()


@pytest.mark.parametrize("name", ["alpaca", "chat", "sharegpt"])
def test_files_of_ones_own_are_not_on_the_hub(source, name):
    assert hub_dataset(source(name, path="chats.jsonl")) is None
    assert [path.name for path in local_files(source(name, path="chats.jsonl"))] == ["chats.jsonl"]


def test_a_path_in_the_home_folder_is_found(source, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert source("gsm8k", path="~/data.jsonl").path == tmp_path / "data.jsonl"
    assert source("hub", dataset="~/data").dataset == str(tmp_path / "data")


@pytest.mark.parametrize(
    "given", [("gsm8k", "path"), ("chat", "path"), ("alpaca", "path"), ("hub", "dataset")]
)
def test_the_home_folder_of_nobody_is_refused(source, given):
    name, key = given
    with pytest.raises(ValidationError, match="unknown user"):
        source(name, **{key: "~no-such-user/data"})


@pytest.mark.parametrize(
    "given",
    [
        ("gsm9k", {}),
        ("gsm8k", {"lines": 3}),
        ("gsm8k", {"limit": 0}),
        ("mbpp", {"split": "dev"}),
        ("builtin", {"split": "test"}),
        ("builtin", {"num_examples": 0}),
        ("glue", {}),
        ("glue", {"task": "stsb"}),
        ("superglue", {"task": "record"}),
        ("alpaca", {}),
    ],
)
def test_what_no_adapter_understands_is_refused(source, given):
    name, options = given
    with pytest.raises(ValidationError):
        source(name, **options)
