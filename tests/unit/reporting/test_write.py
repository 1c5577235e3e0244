from __future__ import annotations

import json
from pathlib import Path

import pytest

from quantship.reporting import html
from quantship.reporting.schema import Report
from quantship.reporting.write import read, write


def test_all_forms_are_written_and_nothing_else(report: Report, tmp_path: Path) -> None:
    write(report, tmp_path / "runs" / "x")
    names = sorted(path.name for path in (tmp_path / "runs" / "x").iterdir())
    assert names == ["report.html", "report.json", "report.md", "schema.json"]


def test_what_is_written_reads_back(report: Report, tmp_path: Path) -> None:
    write(report, tmp_path)
    assert read(tmp_path) == report
    schema = json.loads((tmp_path / "schema.json").read_text())
    assert schema["properties"].keys() == json.loads((tmp_path / "report.json").read_text()).keys()


def test_writing_twice_replaces(report: Report, tmp_path: Path) -> None:
    write(report, tmp_path)
    first = (tmp_path / "report.html").read_bytes()
    write(report.model_copy(update={"notes": ["Another note."]}), tmp_path)
    assert read(tmp_path).notes == ["Another note."]
    assert (tmp_path / "report.html").read_bytes() != first


def test_a_failed_rendering_leaves_the_old_report(
    report: Report, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(report, tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def fail(_: Report) -> str:
        raise RuntimeError("cannot draw")

    monkeypatch.setattr(html, "render", fail)
    with pytest.raises(RuntimeError, match="cannot draw"):
        write(report.model_copy(update={"name": "other"}), tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_failed_replacement_leaves_no_temporary_file(report: Report, tmp_path: Path) -> None:
    (tmp_path / "report.html").mkdir()
    with pytest.raises(OSError, match=r"report\.html"):
        write(report, tmp_path)
    assert not list(tmp_path.glob(".*.tmp"))
