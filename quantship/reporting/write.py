"""A report on disk: ``report.json`` and its schema, ``report.md``, ``report.html``."""

from __future__ import annotations

import json
from pathlib import Path

from quantship.reporting import html, markdown
from quantship.reporting.schema import Report, json_schema


def write(report: Report, out: Path) -> None:
    """Write all forms of the report into ``out``, each in one rename.

    Everything is rendered before anything is written, so an error leaves the old files as they
    were.
    """
    texts = {
        "report.json": report.model_dump_json(indent=2) + "\n",
        "schema.json": json.dumps(json_schema(), indent=2) + "\n",
        "report.md": markdown.render(report),
        "report.html": html.render(report),
    }
    out.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        replace(out / name, text)


def read(out: Path) -> Report:
    """The report that ``write`` left in ``out``."""
    return Report.model_validate_json((out / "report.json").read_text(encoding="utf-8"))


def replace(path: Path, text: str) -> None:
    """Write a file in one rename: whoever reads it reads all of it, the old one or the new one."""
    partial = path.with_name(f".{path.name}.partial")
    try:
        partial.write_text(text, encoding="utf-8", newline="\n")
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
