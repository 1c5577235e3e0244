"""Pages to look at: reports with everything in them, and a comparison of runs."""

from __future__ import annotations

from pathlib import Path

import samples

from quantship.comparing import html as comparison
from quantship.comparing.compare import compare
from quantship.reporting import html
from quantship.reporting import write as reports
from quantship.reporting.schema import Report

LONG = "a_name_that_goes_on_and_on_without_a_place_to_break_" * 3


def write(out: Path) -> dict[str, Path]:
    """Write all pages into a folder; returns their files by name."""
    whole = samples.whole()
    texts = {
        "gate-failed": html.render(whole),
        "gates-hold": html.render(samples.passing()),
        "long-names": html.render(_renamed(whole)),
        "comparison": _comparison(whole, out),
    }
    out.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        (out / f"{name}.html").write_text(text, encoding="utf-8")
    return {name: out / f"{name}.html" for name in texts}


def _comparison(report: Report, out: Path) -> str:
    runs = [out / "runs" / name for name in ("monday", "tuesday")]
    for run in runs:
        reports.write(report.model_copy(update={"name": run.name}), run)
    return comparison.render(compare(runs))


def _renamed(report: Report) -> Report:
    """The same report, where whatever has a name of its own has a long one."""
    text = report.model_dump_json().replace("qat-w4a16-g32", LONG).replace("gsm8k", f"task-{LONG}")
    return Report.model_validate_json(text)
