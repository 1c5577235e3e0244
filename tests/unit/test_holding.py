from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from quantship import holding
from quantship.errors import QuantshipError, StageError, UsageError

HOLDER = """
import sys, time
from pathlib import Path
from quantship import holding
from quantship.errors import UsageError

root, seconds = Path(sys.argv[1]), float(sys.argv[2])
try:
    with holding.alone(root, "run"):
        print("held", flush=True)
        (root / "inside").mkdir()  # fails where somebody else is in here
        time.sleep(seconds)
        (root / "inside").rmdir()
except UsageError as error:
    print("refused" if "another run is using" in str(error) else error)
"""


def start(root: Path, seconds: float) -> subprocess.Popen[str]:
    """A process that holds a directory for so long, or says that it cannot."""
    command = [sys.executable, "-c", HOLDER, str(root), str(seconds)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def first_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def test_while_one_holds_it_nobody_else_does_until_it_is_killed(tmp_path: Path) -> None:
    root = tmp_path / "artifacts"
    holder = start(root, 60)
    assert first_line(holder) == "held"
    with pytest.raises(UsageError, match=rf"another run is using {root}"):
        holding.alone(root, "run").__enter__()
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    with holding.alone(root, "run"):
        assert (root / holding.LOCK).exists()


def test_of_those_that_come_at_once_no_two_are_in_it(tmp_path: Path) -> None:
    processes = [start(tmp_path, 0.02) for _ in range(6)]
    said = [process.communicate()[0].strip() for process in processes]
    assert set(said) <= {"held", "refused"}
    assert "held" in said
    assert [process.returncode for process in processes] == [0] * 6
    assert not (tmp_path / "inside").exists()


@pytest.mark.parametrize("name", ["steps", "runs", "runs/run", "runs/run/models", ".lock"])
def test_what_is_in_the_way_is_told_before_work_starts(name: str, tmp_path: Path) -> None:
    place = tmp_path / name
    place.parent.mkdir(parents=True, exist_ok=True)
    if name == ".lock":
        place.mkdir()
    else:
        place.write_text("")
    with pytest.raises(UsageError, match="artifacts cannot be kept in") as caught:
        holding.alone(tmp_path, "run").__enter__()
    assert str(place) in str(caught.value)
    assert caught.value.exit_code == 2


def test_a_file_in_its_place_is_told(tmp_path: Path) -> None:
    (tmp_path / "artifacts").write_text("")
    with pytest.raises(UsageError, match="File exists"):
        holding.alone(tmp_path / "artifacts", "run").__enter__()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_directory_that_may_not_be_written_to_is_told(tmp_path: Path) -> None:
    tmp_path.chmod(0o555)
    with pytest.raises(UsageError, match="Permission denied"):
        holding.alone(tmp_path, "run").__enter__()
    tmp_path.chmod(0o755)


def test_a_full_disk_keeps_nobody_from_making_room_on_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "steps").mkdir()

    def refuse(path: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(Path, "touch", refuse)
    with holding.alone(tmp_path, "run"):
        assert (tmp_path / "steps").is_dir()


def test_looking_whether_it_can_be_written_to_leaves_nothing(tmp_path: Path) -> None:
    for name in ("steps", "runs/run/models"):
        (tmp_path / name).mkdir(parents=True)
    before = sorted(tmp_path.rglob("*"))
    with holding.alone(tmp_path, "run"):
        pass
    assert sorted(tmp_path.rglob("*")) == sorted([*before, tmp_path / holding.LOCK])


def test_what_its_disk_refuses_is_told_in_words(tmp_path: Path) -> None:
    place = tmp_path / "runs" / "run" / "report.json"
    place.mkdir(parents=True)
    source = tmp_path / "new"
    source.touch()
    with (
        pytest.raises(QuantshipError, match="Is a directory") as caught,
        holding.explained(tmp_path),
    ):
        source.replace(place)
    assert str(caught.value).startswith(str(place))
    full = OSError(errno.ENOSPC, "No space left on device", str(tmp_path / "x"))
    with pytest.raises(QuantshipError, match="is full"), holding.explained(tmp_path):
        raise full


@pytest.mark.parametrize(
    "error",
    [
        StageError("qat", "why"),
        ValueError("why"),
        OSError("why"),
        ConnectionError("why"),
        FileNotFoundError(errno.ENOENT, "why", "/elsewhere"),
        KeyboardInterrupt(),
    ],
    ids=lambda error: type(error).__name__,
)
def test_all_else_is_as_it_was(error: BaseException, tmp_path: Path) -> None:
    with pytest.raises(type(error)) as caught, holding.explained(tmp_path):
        raise error
    assert caught.value is error
