"""Disturb runs in every way there is: ``nox -s faults``.

    python -m faults [--only KIND ...] [--seed N] [--short] [--out FOLDER]

Prints a table, and writes it with every fault as JSON and as Markdown. Exits with 1 where something
finished was lost, something damaged was used again, or a run did not end as it should.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from faults import table
from faults.frame import Fault, Lab
from faults.kinds import KINDS
from faults.runs import Server
from rich.console import Console


def main() -> None:
    """Inject all kinds of faults, or those that are named."""
    parser = argparse.ArgumentParser(prog="faults", description=__doc__)
    parser.add_argument("--only", nargs="*", choices=[kind.KIND for kind in KINDS], help="kinds")
    parser.add_argument("--seed", type=int, default=0, help="of all that is random")
    parser.add_argument("--short", action="store_true", help="as few as in CI")
    parser.add_argument("--out", type=Path, default=Path("artifacts/faults"), help="for the table")
    options = parser.parse_args()
    console = Console(highlight=False, width=150)
    found: list[Fault] = []
    with tempfile.TemporaryDirectory(prefix="faults-") as work, Server(Path(work)) as server:
        lab = Lab(Path(work), server)
        for kind in KINDS:
            if options.only and kind.KIND not in options.only:
                continue
            reason = kind.reject()
            if reason is not None:
                console.print(f"{kind.KIND}: left out: {reason}", style="yellow", markup=False)
                continue
            for fault in kind.inject(lab, short=options.short, seed=options.seed):
                found.append(fault)
                console.print(table.line(fault), markup=False)
    console.print(table.rich(found))
    table.write(found, options.out, seed=options.seed)
    console.print(f"Every fault: {options.out / 'faults.md'}", markup=False)
    if not all(fault.passed for fault in found):
        sys.exit(1)


if __name__ == "__main__":
    main()
