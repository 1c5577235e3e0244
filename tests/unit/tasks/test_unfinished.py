from __future__ import annotations

from pathlib import Path

from quantship.tasks import unfinished
from quantship.tasks.base import Example

EXAMPLES = [
    Example("a:1", {"accuracy": 1.0}, prompt="ü", answer="no"),
    Example("a:2", {"accuracy": 0.1 + 0.2}, weight=3.0),
    Example("a:3", {"accuracy": 0.0}),
]


def test_nothing_is_there_at_the_start(tmp_path: Path) -> None:
    assert unfinished.read(tmp_path / "none") == []


def test_what_was_added_comes_back_in_order(tmp_path: Path) -> None:
    unfinished.append(EXAMPLES[:1], tmp_path / "new")
    unfinished.append(EXAMPLES[1:], tmp_path / "new")
    assert unfinished.read(tmp_path / "new") == EXAMPLES


def test_a_line_that_a_kill_tore_is_taken_off_and_written_again(tmp_path: Path) -> None:
    unfinished.append(EXAMPLES, tmp_path)
    path = tmp_path / unfinished.FILE
    path.write_bytes(path.read_bytes()[:-9])
    assert unfinished.read(tmp_path) == EXAMPLES[:2]
    unfinished.append(EXAMPLES[2:], tmp_path)
    assert unfinished.read(tmp_path) == EXAMPLES
