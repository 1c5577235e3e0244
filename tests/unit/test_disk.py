from __future__ import annotations

import errno
import shutil
import tempfile
from collections import namedtuple
from pathlib import Path

import pytest

from quantship import disk

Usage = namedtuple("Usage", "total used free")


class Foreign(Exception):
    """What a library raises whose errors have no number."""


def raised(error: BaseException, cause: BaseException | None = None) -> BaseException:
    """An error as it is caught, with what was raised before it."""
    try:
        if cause is None:
            raise error
        raise error from cause
    except BaseException as caught:  # noqa: BLE001
        return caught


def free(monkeypatch: pytest.MonkeyPatch, places: dict[Path, int]) -> None:
    """Let disks have this much room, and others very much."""

    def usage(path: Path) -> Usage:
        room = places.get(Path(path), 10**12)
        return Usage(2 * 10**12, 2 * 10**12 - room, room)

    monkeypatch.setattr(shutil, "disk_usage", usage)


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        OSError(errno.EDQUOT, "Disk quota exceeded"),
        Foreign("I/O error: No space left on device (os error 28)"),
        Foreign(
            "[Errno 28] Error writing bytes to file. Detail: [errno 28] No space left on device"
        ),
    ],
    ids=["errno", "quota", "Rust", "arrow"],
)
def test_whoever_says_that_there_is_no_room_is_understood(
    error: BaseException, tmp_path: Path
) -> None:
    for one in (error, raised(RuntimeError("writing failed"), error)):
        said = disk.complaint(one, tmp_path)
        assert said is not None
        assert "Make room there, or give --artifacts" in said
        assert "What came of it" not in said


def test_the_disk_and_its_room_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    free(monkeypatch, {tmp_path: 12_000})
    error = OSError(errno.ENOSPC, "No space left on device")
    said = disk.complaint(error, tmp_path, written_bytes=1_500_000, needed_bytes=4_000_000)
    assert said is not None
    first, second, *_ = said.splitlines()
    mount = next(one for one in (tmp_path, *tmp_path.parents) if one.is_mount())
    assert first == f"the disk at {mount} is full: 12.0 kB of 2.0 TB are free"
    assert second.strip() == "1.5 MB had been written, roughly 4.0 MB are needed."


def test_a_full_disk_is_the_reason_of_what_nobody_explains(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    error = RuntimeError("[enforce fail at inline_container.cc:664] . unexpected pos 64 vs 0")
    assert disk.complaint(error, tmp_path) is None
    free(monkeypatch, {tmp_path: 0})
    said = disk.complaint(error, tmp_path)
    assert said is not None
    assert said.endswith(f"What came of it: RuntimeError: {error}")


@pytest.mark.parametrize(("room", "is_short"), [(3_000_000, True), (5_000_000, False)])
def test_where_a_library_is_vague_it_counts_what_the_job_needs(
    room: int, is_short: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    error = RuntimeError("basic_ios::clear: iostream error")
    free(monkeypatch, {tmp_path: room})
    assert (disk.complaint(error, tmp_path, needed_bytes=4_000_000) is not None) == is_short
    assert disk.complaint(error, tmp_path) is None
    other = RuntimeError("shapes do not match")
    assert disk.complaint(other, tmp_path, needed_bytes=4_000_000) is None


def test_the_disk_of_temporary_files_is_told_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = tmp_path / "temporary"
    elsewhere.mkdir()
    monkeypatch.setattr(tempfile, "gettempdir", lambda: str(elsewhere))
    free(monkeypatch, {elsewhere: 0})
    said = disk.complaint(OSError(errno.ENOSPC, "No space left on device"), tmp_path)
    assert said is not None
    assert "TMPDIR" in said
    assert "--artifacts" not in said


def test_a_quota_is_no_full_disk(tmp_path: Path) -> None:
    said = disk.complaint(OSError(errno.EDQUOT, "Disk quota exceeded"), tmp_path)
    assert said is not None
    assert said.startswith("your quota on the disk at ")


@pytest.mark.parametrize(
    "error", [OSError(errno.EACCES, "Permission denied"), ValueError("no"), KeyError("x")]
)
def test_other_errors_are_none_of_its_business(error: BaseException, tmp_path: Path) -> None:
    assert disk.complaint(raised(error), tmp_path) is None
