from __future__ import annotations

import json

import datasets
import numpy as np
import pytest

from quantship.data import arrow_files
from quantship.data.digest import digest
from quantship.data.templating import IGNORED

ROWS = [([1, 2, 3], [IGNORED, 2, 3]), ([4], [4]), ([5, 6], [5, IGNORED]), ([7, 8], [7, 8])]


def rows(count: int = len(ROWS)):
    return [tuple(np.array(column, dtype=np.int32) for column in row) for row in ROWS[:count]]


@pytest.mark.parametrize("tokens_at_once", [1, 3, 10**6])
@pytest.mark.parametrize("file_tokens", [1, 4, 10**6])
def test_what_is_written_is_a_data_set_of_the_library(
    tmp_path, monkeypatch, tokens_at_once, file_tokens
):
    monkeypatch.setattr(arrow_files, "TOKENS_AT_ONCE", tokens_at_once)
    monkeypatch.setattr(arrow_files, "FILE_TOKENS", file_tokens)
    written = arrow_files.write(rows(), tmp_path / "data")
    found = datasets.load_from_disk(tmp_path / "data")
    assert list(zip(found["input_ids"], found["labels"], strict=True)) == ROWS
    kinds = {str(kind) for kind in found.features.values()}
    assert kinds == {"List(Value('int32'))"}
    assert (written.sequences, written.tokens, written.loss_tokens) == (4, 8, 3)
    assert written.digest == digest(tmp_path / "data")
    names = sorted(path.name for path in (tmp_path / "data").iterdir())
    count = sum(name.endswith(".arrow") for name in names)
    arrows = [f"data-{index:05d}-of-{count:05d}.arrow" for index in range(count)]
    assert names == [*arrows, "dataset_info.json", "state.json"]


def test_no_rows_are_a_data_set_too(tmp_path):
    written = arrow_files.write([], tmp_path / "data")
    assert len(datasets.load_from_disk(tmp_path / "data")) == written.sequences == 0


def test_the_same_rows_are_the_same_bytes(tmp_path):
    for name in ("one", "other"):
        arrow_files.write(rows(), tmp_path / name)
    for file in (tmp_path / "one").iterdir():
        assert file.read_bytes() == (tmp_path / "other" / file.name).read_bytes()


def test_other_rows_have_another_fingerprint(tmp_path):
    found = set()
    for count in (3, 4):
        arrow_files.write(rows(count), tmp_path / str(count))
        found.add(json.loads((tmp_path / str(count) / "state.json").read_text())["_fingerprint"])
    assert len(found) == 2
