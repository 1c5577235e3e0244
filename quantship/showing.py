"""How a run and its plan look on a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from quantship import outlook
from quantship.reporting.formatting import DASH, size

if TYPE_CHECKING:
    from quantship.lockstep import Member
    from quantship.pipeline import Event, PlannedStep


def plan_table(planned: list[PlannedStep]) -> Table:
    """One row a job: whether it runs, and what it needs."""
    table = Table(box=None, pad_edge=False)
    for title in ("Step", "Stage", "", "Disk", "Memory", "Directory"):
        table.add_column(title, justify="right" if title in ("Disk", "Memory") else "left")
    for step in planned:
        state = Text("✓ reused", "green") if step.reused else Text("▸ runs", "yellow")
        disk, memory = (
            DASH if number is None else size(number)
            for number in (step.disk_bytes, step.memory_bytes)
        )
        where = f"known after {step.search}" if step.search else str(step.path)
        if step.search:
            state = Text("⋯ waits", "yellow")
        table.add_row(step.name, step.stage, state, disk, memory, Text(where, "dim"))
    return table


def plan_summary(planned: list[PlannedStep]) -> str:
    """What is still to be done, added up."""
    ahead = [step for step in planned if not step.reused]
    disk = size(sum(step.disk_bytes or 0 for step in ahead))
    memory = size(max((step.memory_bytes or 0 for step in ahead), default=0))
    reused = len(planned) - len(ahead)
    return f"{len(ahead)} to run, {reused} reused; about {disk} to write, {memory} of memory"


def company(members: Sequence[Member]) -> Text:
    """How many processes run a recipe, and what each one computes with.

    Args:
        members: All of them; the first one first.
    """
    machines = len({one.machine for one in members})
    threads = " or ".join(map(str, sorted({one.threads for one in members})))
    with_ = f"{threads} thread{'' if threads == '1' else 's'}"
    if members[0].gpu is not None:
        with_ += f" and a GPU ({members[0].gpu})"
    where = "1 machine" if machines == 1 else f"{machines} machines"
    line = Text(f"{len(members)} processes on {where}, each with {with_}", "dim")
    share = members[0].cores * machines // len(members)
    if members[0].gpu is None and members[0].threads < share:
        hint = f"OMP_NUM_THREADS={share} gives each process its share of the cores"
        return Text("\n").join([line, outlook.caution(hint)])
    return line


def event_line(event: Event) -> Text:
    """What happened to a job, and below it what to beware of."""
    signs = {"reused": "✓", "started": "▸", "finished": "✓", "failed": "✗"}
    words = {"reused": "reused", "started": "running", "finished": "done", "failed": "failed"}
    styles = {"reused": "green", "started": "yellow", "finished": "green", "failed": "bold red"}
    seconds = f" {_duration(event.seconds)}" if event.seconds is not None else ""
    process = f"  process {event.process}" if event.process is not None else ""
    line = Text.assemble(
        (f"{signs[event.kind]} ", styles[event.kind]),
        f"{event.step:<24} ",
        (f"{words[event.kind]}{seconds}", styles[event.kind]),
        (process, "dim"),
        (f"  {event.detail}" if event.detail else "", "dim"),
    )
    return Text("\n").join([line, *map(outlook.caution, event.warnings)])


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s"
