from __future__ import annotations

import os
import subprocess
import sys

import pytest

from quantship import processes
from quantship.errors import UsageError
from quantship.processes.identity import require_launched

LAUNCHED = {"WORLD_SIZE": "4", "RANK": "3", "LOCAL_RANK": "1", "MASTER_ADDR": "here"}


@pytest.fixture
def launched(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in LAUNCHED.items():
        monkeypatch.setenv(name, value)


def test_without_a_launcher_there_is_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in LAUNCHED:
        monkeypatch.delenv(name, raising=False)
    assert (processes.number(), processes.index(), processes.index_here()) == (1, 0, 0)
    assert processes.is_first()
    require_launched()


def test_one_process_under_a_launcher_is_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {**LAUNCHED, "WORLD_SIZE": "1", "RANK": "0"}.items():
        monkeypatch.setenv(name, value)
    with processes.together():
        assert processes.is_first()
        assert processes.current() is None
        assert processes.gathered("x") == ["x"]
        assert processes.first_does(lambda: 5) == processes.in_step(lambda: 5) == 5
        assert list(processes.turns(3)) == [0, 1, 2]


@pytest.mark.usefixtures("launched")
def test_a_launcher_says_which_process_this_is() -> None:
    assert (processes.number(), processes.index(), processes.index_here()) == (4, 3, 1)
    assert not processes.is_first()
    require_launched()


@pytest.mark.usefixtures("launched")
def test_alone_hides_the_others_from_children_too() -> None:
    program = "from quantship import processes; print(processes.number(), processes.index())"

    def child() -> str:
        command = [sys.executable, "-c", program]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    before = dict(os.environ)
    assert child() == "4 3\n"
    with processes.alone():
        assert (processes.number(), processes.is_first()) == (1, True)
        assert child() == "1 0\n"
    assert dict(os.environ) == before


@pytest.mark.usefixtures("launched")
@pytest.mark.parametrize("name", ["WORLD_SIZE", "RANK", "LOCAL_RANK"])
def test_what_is_no_number_is_refused(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "-1")
    with pytest.raises(UsageError, match=f"{name} is '-1'"):
        require_launched()
