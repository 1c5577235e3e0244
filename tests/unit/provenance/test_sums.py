from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from quantship.provenance.sums import SUMS, write_sums

TOOL = shutil.which("sha256sum")
needs_tool = pytest.mark.skipif(TOOL is None, reason="no sha256sum on this machine")


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    model = tmp_path / "steps" / "qat-1"
    model.mkdir(parents=True)
    (model / "model.safetensors").write_bytes(b"\0\1\2")
    out = tmp_path / "runs" / "a"
    (out / "models").mkdir(parents=True)
    (out / "models" / "qat").symlink_to(Path("../../../steps/qat-1"))
    (out / "report.json").write_text("{}")
    (out / "ü and space.txt").write_text("x")
    (out / "back\\slash\nline").write_text("y")
    (out / ".hidden").write_text("z")
    return out


def check(directory: Path) -> subprocess.CompletedProcess[str]:
    assert TOOL is not None
    command = [TOOL, "--check", "--strict", SUMS]
    return subprocess.run(command, cwd=directory, capture_output=True, text=True, check=False)


@needs_tool
def test_the_real_tool_finds_every_file_as_it_was(directory: Path) -> None:
    assert write_sums(directory) == directory / SUMS
    done = check(directory)
    assert (done.returncode, done.stderr) == (0, "")
    assert len(done.stdout.splitlines()) == 4


@needs_tool
@pytest.mark.parametrize("name", ["report.json", "models/qat/model.safetensors"])
def test_the_real_tool_finds_what_was_changed(directory: Path, name: str) -> None:
    write_sums(directory)
    (directory / name).write_bytes(b"other")
    done = check(directory)
    assert done.returncode == 1
    assert f"{name}: FAILED" in done.stdout


@pytest.mark.skipif(sys.platform == "win32", reason="there are no such pipes")
def test_what_is_no_file_is_left_out(directory: Path) -> None:
    before = write_sums(directory).read_text()
    os.mkfifo(directory / "pipe")
    (directory / "nowhere").symlink_to("gone")
    assert write_sums(directory).read_text() == before


def test_files_are_listed_in_order_and_hidden_ones_are_not(directory: Path) -> None:
    text = write_sums(directory).read_text()
    names = [line.split("  ", 1)[1] for line in text.splitlines()]
    assert names == [
        "back\\\\slash\\nline",
        "models/qat/model.safetensors",
        "report.json",
        "ü and space.txt",
    ]


def test_sums_of_the_same_files_are_the_same_file(directory: Path) -> None:
    first = write_sums(directory).read_bytes()
    assert write_sums(directory).read_bytes() == first
    assert sorted(path.name for path in directory.iterdir() if path.name.startswith(".")) == [
        ".hidden"
    ]


def test_what_is_known_is_not_read_again(directory: Path) -> None:
    known = {"models/qat/model.safetensors": "0" * 64, "models/other/x": "1" * 64}
    lines = dict(
        reversed(line.split("  ", 1))
        for line in write_sums(directory, known).read_text().split("\n")
        if line
    )
    assert lines["models/qat/model.safetensors"] == "0" * 64
    assert "models/other/x" not in lines
    assert lines["report.json"] not in known.values()
