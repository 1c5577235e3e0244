"""Two processes meet, and end together however one of them ends."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path

import psutil
import pytest
from several import Ended, Pair, Start, ended, wait_until, workers

PROGRAM = Path(__file__).with_name("meet.py")
INTERRUPTED = "Interrupted. The same command resumes where it stopped."
SOON_S = 15


def run(pair: Pair, case: str, folder: Path) -> list[Ended]:
    arguments = (PROGRAM, case, folder)
    return [ended(process) for process in pair(arguments, arguments)]


def said(both: list[Ended]) -> str:
    """What the two of them said."""
    return "".join(one.out + one.err for one in both)


def test_they_tell_each_other(torchrun: Start, tmp_path: Path) -> None:
    done = ended(torchrun(PROGRAM, "tell", tmp_path))
    assert (done.code, done.out) == (0, ""), done
    found = [json.loads((tmp_path / f"{index}.json").read_text()) for index in (0, 1)]
    for index, one in enumerate(found):
        assert [len(text) for text in one["gathered"]] == [11, 101]
        assert one["agreed"] == "from 0"
        assert one["first"] == found[0]["first"]
        assert one["alone"] == [1, 0, [index]]
    first, second = (one["taken"] for one in found)
    assert sorted(first + second) == list(range(9))
    assert (first[0], second[0]) == (0, 1)
    assert len(first) > len(second)  # which is slow
    assert sorted(found[0]["news"]) == sorted(
        [f"0 took {turn}" for turn in first] + [f"1 took {turn}" for turn in second]
    )
    of_second = [item for item in found[0]["news"] if item.startswith("1")]
    assert of_second == [f"1 took {turn}" for turn in second]
    assert found[1]["news"] == []


@pytest.mark.parametrize(
    ("case", "code", "message"),
    [
        ("differ", 4, "only here"),
        ("leave", 3, "the second one's own"),
        ("bug", 1, "internal error: RuntimeError: the second one's bug"),
        ("interrupt", 130, INTERRUPTED),
    ],
)
def test_an_error_in_one_is_the_end_of_both_and_told_once(
    pair: Pair, tmp_path: Path, case: str, code: int, message: str
) -> None:
    both = run(pair, case, tmp_path)
    assert [one.code for one in both] == [code, code], both
    assert said(both).count(message) == 1, both
    if case == "differ":  # they agree on it, and the first one speaks
        assert message in both[0].err


def test_one_that_is_killed_is_missed(pair: Pair, tmp_path: Path) -> None:
    began = time.monotonic()
    first, second = run(pair, "die", tmp_path)
    assert (first.code, second.code) == (3, -signal.SIGKILL), first
    assert "process 1 of 2 has ended without a word" in first.err
    assert time.monotonic() - began < 4 * SOON_S


def test_one_that_is_killed_is_missed_under_torchrun_too(torchrun: Start, tmp_path: Path) -> None:
    launcher = torchrun(PROGRAM, "wait", tmp_path)
    wait_until(lambda: len(list(tmp_path.glob("*.waits"))) == 2, launcher)
    workers(launcher)[1].kill()
    done = ended(launcher, SOON_S)
    assert done.code == 1
    assert done.err.count("process 1 of 2 has ended without a word") == 1, done
    assert INTERRUPTED not in done.err
    assert "exitcode  : 3" in done.err


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
def test_a_wait_can_be_stopped(torchrun: Start, tmp_path: Path, number: signal.Signals) -> None:
    launcher = torchrun(PROGRAM, "wait", tmp_path)
    wait_until(
        lambda: sum(bool(one.read_text()) for one in tmp_path.glob("*.waits")) == 2, launcher
    )
    both = [psutil.Process(int(path.read_text())) for path in tmp_path.glob("*.waits")]
    time.sleep(0.5)
    launcher.send_signal(number)
    done = ended(launcher, SOON_S)
    assert done.err.count(INTERRUPTED) == 1, done
    assert not any(process.is_running() for process in both)


def test_one_that_is_stopped_stops_the_other(pair: Pair, tmp_path: Path) -> None:
    arguments = (PROGRAM, "wait", tmp_path)
    both = pair(arguments, arguments)
    for process in both:
        wait_until(lambda: len(list(tmp_path.glob("*.waits"))) == 2, process)
    both[1].terminate()
    found = [ended(process, SOON_S) for process in both]
    assert [one.code for one in found] == [130, 130], found
    assert said(found).count(INTERRUPTED) == 1


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"WORLD_SIZE": "two"}, "WORLD_SIZE is 'two' in the environment, and no number"),
        ({"WORLD_SIZE": "2"}, "MASTER_ADDR is not set: no launcher has started this"),
        (
            {"ACCELERATE_USE_CPU": "True", "MASTER_ADDR": "127.0.0.1"},
            "accelerate launch --cpu starts one process only",
        ),
    ],
)
def test_an_environment_that_is_no_launchers_is_refused(
    start: Start, tmp_path: Path, environment: dict[str, str], message: str
) -> None:
    done = ended(start(PROGRAM, "tell", tmp_path, **environment))
    assert done.code == 2
    assert message in done.err
