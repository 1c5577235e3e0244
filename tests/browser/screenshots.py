"""Take pictures of reports: made-up ones that have everything, and those of runs that are named.

nox -s screenshots                         into artifacts/screenshots
nox -s screenshots -- artifacts/runs/mine  and of that run's report.html and compare.html
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import devtools
import looks
import pages
from rich.console import Console

WIDTHS = {"phone": (390, 844), "desk": (1280, 800)}
THEMES: tuple[devtools.Theme, ...] = ("light", "dark")
SKIPPED = 77
"""Exit code where there is no browser."""


def main() -> None:
    """Take the pictures, and say where they are."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("runs", nargs="*", type=Path, help="folders of runs, or HTML files")
    parser.add_argument("--out", type=Path, default=Path("artifacts", "screenshots"))
    given = parser.parse_args()
    console = Console()
    program = devtools.find()
    if program is None:
        console.print(f"NO PICTURES WERE TAKEN: {devtools.missing()}", style="bold red")
        sys.exit(SKIPPED)
    given.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, devtools.browser(program) as browser:
        files = pages.write(Path(folder)) | _of_runs(given.runs)
        for name, file in files.items():
            wide = _take(browser, file, given.out, name)
            note = f", TOO WIDE: {wide}" if wide else ""
            console.print(f"{name}: {len(WIDTHS) * len(THEMES)} widths and themes{note}")
    console.print(f"Pictures: {given.out.resolve()}", soft_wrap=True)


def _of_runs(runs: list[Path]) -> dict[str, Path]:
    """The pages of runs, by names that tell them apart."""
    found = {}
    for place, run in enumerate(runs):
        files = [run] if run.is_file() else sorted(run.glob("*.html"))
        if not files:
            raise SystemExit(f"{run} holds no HTML file")
        found |= {f"{place}-{file.parent.name}-{file.stem}": file for file in files}
    return found


def _take(browser: devtools.Browser, file: Path, out: Path, name: str) -> list[str]:
    """Take pictures of the first screen and of the whole page; returns what is too wide."""
    wide: list[str] = []
    for kind, (width, height) in WIDTHS.items():
        for theme in THEMES:
            with browser.page(file, width=width, height=height, theme=theme) as page:
                page.picture(out / f"{name}-{kind}-{theme}-top.png", whole=False)
                page.picture(out / f"{name}-{kind}-{theme}.png")
                wide += page.ask(looks.OVERFLOW)
    return wide


if __name__ == "__main__":
    main()
