from __future__ import annotations

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from quantship.data import json_list
from quantship.data.json_list import json_records
from quantship.errors import DataError

SHARED_TMP = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(st.characters(codec="utf-8")),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(codec="utf-8")), inner),
    max_leaves=8,
)


@SHARED_TMP
@given(
    values=st.lists(VALUES, max_size=6),
    indent=st.sampled_from([None, 1]),
    ascii_only=st.booleans(),
    chunk=st.integers(16, 40),
)
def test_a_list_is_read_as_json_reads_it(tmp_path, monkeypatch, values, indent, ascii_only, chunk):
    monkeypatch.setattr(json_list, "_CHUNK", chunk)
    text = json.dumps(values, indent=indent, ensure_ascii=ascii_only)
    path = tmp_path / "list.json"
    path.write_text(f"\n {text}\n", encoding="utf-8", newline="")
    found = list(json_records(path))
    assert [value for _, value in found] == values
    lines = [int(origin.rpartition(":")[2]) for origin, _ in found]
    if indent is None:
        assert set(lines) <= {2}
    else:  # a record begins on a line of its own
        starts = [json.dumps(value, indent=1, ensure_ascii=ascii_only)[0] for value in values]
        written = path.read_bytes().decode().split("\n")
        assert [written[line - 1].strip()[0] for line in lines] == starts
        assert lines == sorted(set(lines))


@pytest.mark.parametrize("chunk", [16, 2**16])
@pytest.mark.parametrize(
    ("text", "line", "says"),
    [
        (
            b'[\n {"a": 1},\n {"a": oops, "b": 1111111111111}\n]',
            3,
            "Expecting value at character 8",
        ),
        (b'[\n {"a": 1}\n {"a": 2}\n]', 3, "expecting ',', not '{'"),
        (b'[\n {"a": 1},\n {"a": 2}', 3, "expecting ',', not the end of the file"),
        (b'[\n {"a": 1},\n {"a": 2', 3, "not JSON"),
        (b'[\n {"a": 1},\n "never ends}\n]', 3, "not JSON"),
        (b'[\n {"a": 1},\n {"a": "\xff"}\n]', 3, "not UTF-8: byte 0xff"),
        (b'[\n {"a": 1}\n]\n{"a": 2}', 4, "something follows the list"),
        (b"[\n {},\n" + b"[" * 100_000, 3, "not JSON"),
    ],
    ids=str,
)
def test_what_is_broken_is_named_by_its_line(tmp_path, monkeypatch, chunk, text, line, says):
    monkeypatch.setattr(json_list, "_CHUNK", chunk)
    path = tmp_path / "list.json"
    path.write_bytes(text)
    with pytest.raises(DataError) as caught:
        list(json_records(path))
    assert caught.value.origin == f"{path}:{line}"
    assert says in str(caught.value)


def test_a_record_without_end_is_not_read_into_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(json_list, "LONGEST_LINE_BYTES", 1000)
    monkeypatch.setattr(json_list, "_CHUNK", 100)
    path = tmp_path / "list.json"
    path.write_text('[\n1,\n"' + "a" * 100_000)
    read = json_records(path)
    assert next(read)[1] == 1
    with pytest.raises(DataError, match="the record has more than 1,000 characters") as caught:
        next(read)
    assert caught.value.origin == f"{path}:3"


def test_a_byte_order_mark_is_dropped(tmp_path):
    path = tmp_path / "list.json"
    path.write_bytes(b"\xef\xbb\xbf[1]")
    assert list(json_records(path)) == [(f"{path}:1", 1)]
