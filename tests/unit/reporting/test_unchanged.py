from __future__ import annotations

import os
import sys
from datetime import timedelta
from pathlib import Path

import pytest

from quantship.reporting.schema import Report
from quantship.reporting.unchanged import settled


def test_a_report_that_says_nothing_new_keeps_its_time(report: Report, tmp_path: Path) -> None:
    (tmp_path / "report.json").write_text(report.model_dump_json())
    later = {"created": report.created + timedelta(hours=1), "duration_s": 2.0}
    assert settled(report.model_copy(update=later), tmp_path) == report


def test_a_report_that_says_something_new_has_its_own_time(report: Report, tmp_path: Path) -> None:
    (tmp_path / "report.json").write_text(report.model_dump_json())
    new = report.model_copy(update={"notes": ["new"], "duration_s": 2.0})
    assert settled(new, tmp_path) == new


def test_what_cannot_be_read_counts_for_nothing(report: Report, tmp_path: Path) -> None:
    assert settled(report, tmp_path) == report
    (tmp_path / "report.json").write_text("{}")
    assert settled(report, tmp_path) == report


@pytest.mark.skipif(sys.platform == "win32", reason="there are no such pipes")
def test_a_pipe_is_not_waited_for(report: Report, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "report.json")
    assert settled(report, tmp_path) == report
