"""The faults as a table: on a terminal, as Markdown and as JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from faults.frame import Fault
from rich.table import Table

from quantship import hardware

TITLES = ("Fault", "Injected", "Recovered", "Clean errors", "Killed", "Losses", "Wrong reuse")


@dataclass(frozen=True)
class Row:
    """One kind of fault, or all of them.

    Args:
        kind: Its name.
        injected: How many.
        recovered: After how many a further run ended as if nothing had been.
        clean_errors: How many ended the run that they struck with a message and an exit code.
        killed: How many ended it without a word, as SIGKILL does.
        losses: Finished artifacts that were gone or made again.
        wrong_reuse: Parts of what the further runs left that are not what they should be.
    """

    kind: str
    injected: int
    recovered: int
    clean_errors: int
    killed: int
    losses: int
    wrong_reuse: int

    @property
    def cells(self) -> tuple[str, ...]:
        """As text, in the order of ``TITLES``."""
        numbers = (self.injected, self.recovered, self.clean_errors, self.killed)
        return (self.kind, *map(str, (*numbers, self.losses, self.wrong_reuse)))


def rows(faults: Sequence[Fault]) -> list[Row]:
    """A row for each kind, in the order in which they came, and one for all."""
    kinds = dict.fromkeys(fault.kind for fault in faults)
    each = [_row(kind, [fault for fault in faults if fault.kind == kind]) for kind in kinds]
    return [*each, _row("all", faults)]


def rich(faults: Sequence[Fault]) -> Table:
    """For a terminal."""
    table = Table(box=None, pad_edge=False)
    for title in TITLES:
        table.add_column(title, justify="left" if title == TITLES[0] else "right")
    for row in rows(faults):
        table.add_row(*row.cells)
    return table


def line(fault: Fault) -> str:
    """One fault in a line, and what is wrong in more."""
    sign = "✓" if fault.passed else "✗"
    words = f"{sign} {fault.kind:<18} {fault.moment}: exit {fault.exit_code}, {fault.seconds:.2f} s"
    wrong = [
        *([] if fault.clean else [f"not clean: {fault.message}"]),
        *([] if fault.recovered else ["not recovered"]),
        *([f"lost: {', '.join(fault.lost)}"] if fault.lost else []),
        *([f"wrong: {', '.join(fault.wrong)}"] if fault.wrong else []),
        *([fault.remarks] if fault.remarks else []),
    ]
    return "".join([words, *(f"\n    {text}" for text in wrong)])


def write(faults: Sequence[Fault], folder: Path, *, seed: int) -> None:
    """Leave faults.json and faults.md."""
    folder.mkdir(parents=True, exist_ok=True)
    found = {
        "seed": seed,
        "machine": hardware.cpu_model(),
        "table": [asdict(row) for row in rows(faults)],
        "faults": [asdict(fault) for fault in faults],
    }
    (folder / "faults.json").write_text(json.dumps(found, indent=2) + "\n")
    lines = [_markdown(TITLES), _markdown("---" for _ in TITLES)]
    lines += [_markdown(row.cells) for row in rows(faults)]
    lines += ["", "| Fault | Moment | Exit | Seconds | Said | |", "|---|---|---:|---:|---|---|"]
    for fault in faults:
        result = "✓" if fault.passed else "✗ " + line(fault).partition("\n")[2].strip()
        cells = (fault.kind, f"`{fault.moment}`", str(fault.exit_code), f"{fault.seconds:.2f}")
        lines.append(_markdown([*cells, fault.message, result]))
    (folder / "faults.md").write_text("\n".join(lines) + "\n")


def _row(kind: str, faults: Sequence[Fault]) -> Row:
    said = [fault for fault in faults if fault.clean and (fault.exit_code or 0) > 0]
    return Row(
        kind=kind,
        injected=len(faults),
        recovered=sum(fault.recovered for fault in faults),
        clean_errors=len(said),
        killed=sum(fault.exit_code is not None and fault.exit_code < 0 for fault in faults),
        losses=sum(len(fault.lost) for fault in faults),
        wrong_reuse=sum(len(fault.wrong) for fault in faults),
    )


def _markdown(cells: object) -> str:
    assert not isinstance(cells, str)
    texts = [str(cell).replace("|", "\\|").replace("\n", " ") for cell in cells]  # type: ignore[attr-defined]
    return f"| {' | '.join(texts)} |"
