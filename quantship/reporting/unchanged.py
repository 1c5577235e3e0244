"""A report that says nothing new keeps the words of the one before, its time of day included.

Otherwise a run that only finds what is there would leave other files than before, and pushing them
again would be a commit.
"""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError

from quantship.reporting.schema import Report

OF_THE_MOMENT = {"created", "duration_s"}


def settled(report: Report, directory: Path) -> Report:
    """The report that lies in a directory, where the new one differs by its moment alone.

    Args:
        report: The new one.
        directory: Where it is about to be written.
    """
    file = directory / "report.json"
    if not file.is_file():  # to read a pipe would never end
        return report
    try:
        before = Report.model_validate_json(file.read_bytes())
    except (OSError, ValidationError):  # of another version, if any
        return report
    same = before.model_dump(exclude=OF_THE_MOMENT) == report.model_dump(exclude=OF_THE_MOMENT)
    return before if same else report
