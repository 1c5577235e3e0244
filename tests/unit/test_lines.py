from __future__ import annotations

from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from quantship import lines

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=6,
)
SHARED_TMP = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
THREE = [{"text": "ü\n✓", "n": 0.1 + 0.2}, ["a", None], "last"]


def test_nothing_is_there_at_the_start(tmp_path: Path) -> None:
    assert lines.read(tmp_path / "none") == []
    assert list(tmp_path.iterdir()) == []


@SHARED_TMP
@given(st.lists(VALUES, max_size=5), st.lists(VALUES, max_size=3))
def test_what_was_added_comes_back_in_order(tmp_path: Path, one: list[Any], two: list[Any]) -> None:
    path = tmp_path / "new" / "lines"
    path.unlink(missing_ok=True)
    lines.append(one, path)
    lines.append(two, path)
    assert lines.read(path) == one + two


def test_a_torn_line_is_cut_off_wherever_it_was_torn(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    lines.append(THREE, path)
    whole = path.read_bytes()
    start = len(b"".join(whole.splitlines(keepends=True)[:2]))
    for length in range(start, len(whole)):
        path.write_bytes(whole[:length])
        assert lines.read(path) == THREE[:2], length
        assert path.read_bytes() == whole[:start], length
        lines.append(THREE[2:], path)
        assert path.read_bytes() == whole


def test_a_changed_byte_takes_its_line_with_it_and_those_after(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    lines.append(THREE, path)
    whole = path.read_bytes()
    ends = [0]
    for line in whole.splitlines(keepends=True):
        ends.append(ends[-1] + len(line))
    for index in range(len(whole)):
        changed = bytearray(whole)
        changed[index] ^= 1
        path.write_bytes(changed)
        before = sum(end <= index for end in ends) - 1
        assert lines.read(path) == THREE[:before], index
        assert path.stat().st_size == ends[before]
