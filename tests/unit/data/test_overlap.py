from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from quantship.data import overlap, rows
from quantship.data.parts import Part, Reading

HASHES = st.lists(st.integers(0, 12) | st.integers(2**64 - 3, 2**64 - 1), max_size=30)


@settings(
    deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=100
)
@given(train=st.lists(HASHES, max_size=3), evaluation=st.lists(HASHES, max_size=3))
@pytest.mark.parametrize("at_once", [2, 1000])
def test_records_of_both_sides_are_counted(tmp_path, monkeypatch, train, evaluation, at_once):
    monkeypatch.setattr(overlap, "_READ_AT_ONCE", at_once)

    def written(name, lists):
        paths = [tmp_path / f"{name}{index}" for index in range(len(lists))]
        for path, values in zip(paths, lists, strict=True):
            np.array(values, dtype=np.uint64).tofile(path)
        return paths

    known = {value for values in train for value in values}
    expected = [
        sum(count for value, count in Counter(v).items() if value in known) for v in evaluation
    ]
    assert overlap.count(written("t", train), written("e", evaluation)) == expected


def test_equal_records_of_two_sources_are_found(tmp_path, source):
    files = [tmp_path / "train", tmp_path / "same", tmp_path / "other"]
    sources = [
        source("builtin", num_examples=300),
        source("builtin", num_examples=200),
        source("builtin", split="eval", num_examples=50),
    ]
    for file, one in zip(files, sources, strict=True):
        list(Reading(Part(one), file).take(rows(one)))
    assert overlap.count(files[:1], files[1:]) == [200, 0]
