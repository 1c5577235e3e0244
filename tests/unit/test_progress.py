from __future__ import annotations

import io
from collections.abc import Iterator

import pytest
from rich.console import Console

from quantship import progress


@pytest.fixture
def screen() -> Iterator[io.StringIO]:
    """A terminal with bars switched on, and what it has been shown so far."""
    shown = io.StringIO()
    with progress.bars(Console(file=shown, force_terminal=True, width=100)):
        yield shown


def flush() -> None:
    """Draw now what would be drawn within a tenth of a second."""
    assert progress._active is not None
    progress._active.refresh()


def test_nothing_is_shown_unless_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(progress.track([1, 2, 3], "reading")) == [1, 2, 3]
    with progress.bar("training", 10) as bar:
        bar.move_to(5, total=20, note="half-way")
    assert capsys.readouterr() == ("", "")


def test_a_bar_counts_what_it_tracks(screen: io.StringIO) -> None:
    for item in progress.track("abc", "reading", total=3):
        flush()
        assert f"{'abc'.index(item)}/3" in screen.getvalue()
    assert "reading" in screen.getvalue()


def test_a_bar_moves_by_hand(screen: io.StringIO) -> None:
    with progress.bar("training", None) as bar:
        bar.move_to(7, 40, note="training (loss 1.5)")
        flush()
        assert "7/40" in screen.getvalue()
        assert "training (loss 1.5)" in screen.getvalue()
        bar.move_to(8)
        flush()
    assert "8/40" in screen.getvalue()


def test_bars_go_when_their_work_is_over_or_fails(screen: io.StringIO) -> None:
    assert progress._active is not None
    with pytest.raises(ZeroDivisionError), progress.bar("training", 1):
        1 / 0  # noqa: B018
    next(progress.track([1, 2], "abandoned"))
    assert list(progress.track([1, 2], "done")) == [1, 2]
    assert [task.description for task in progress._active.tasks] == []


def test_bars_are_off_again_afterwards_whatever_happened() -> None:
    def fail() -> None:
        with progress.bars(Console(file=io.StringIO())):
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert progress._active is None
    with progress.bar("training", 1) as bar:
        bar.move_to(1)
