"""Progress bars for long work, silent unless a terminal session has switched them on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

Item = TypeVar("Item")
_active: Progress | None = None


@contextmanager
def bars(console: Console) -> Iterator[None]:
    """Show the bars of everything that runs inside, on ``console``."""
    global _active
    columns = (
        TextColumn("  {task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        _active = progress
        try:
            yield
        finally:
            _active = None


@contextmanager
def bar(description: str, total: int | None) -> Iterator[Bar]:
    """One bar, to be moved by hand."""
    if _active is None:
        yield Bar(None, None)
        return
    task = _active.add_task(description, total=total)
    try:
        yield Bar(_active, task)
    finally:
        _active.remove_task(task)


class Bar:
    """A handle on one bar; does nothing when bars are off."""

    def __init__(self, progress: Progress | None, task: object) -> None:
        self._progress = progress
        self._task = task

    def move_to(self, completed: int, total: int | None = None, note: str | None = None) -> None:
        """Set how much is done, and optionally the total and the description."""
        if self._progress is not None:
            self._progress.update(
                self._task,  # type: ignore[arg-type]
                completed=completed,
                total=total,
                description=note,
            )


def track(items: Iterable[Item], description: str, total: int | None = None) -> Iterator[Item]:
    """Yield ``items`` while a bar counts them."""
    with bar(description, total) as handle:
        for count, item in enumerate(items, start=1):
            yield item
            handle.move_to(count)
