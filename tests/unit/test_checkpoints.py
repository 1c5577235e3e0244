from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from quantship import checkpoints
from quantship.checkpoints import SEAL

FILES = {
    "model.safetensors": b"\x00weights",
    "optimizer.pt": b"moments",
    "trainer_state.json": b"{}",
}


def make(resume: Path, step: int) -> Path:
    """A checkpoint that is whole."""
    folder = resume / f"checkpoint-{step}"
    folder.mkdir(parents=True)
    for name, content in FILES.items():
        (folder / name).write_bytes(content)
    checkpoints.seal(folder)
    return folder


def test_the_newest_is_told_by_its_number(tmp_path: Path) -> None:
    for step in (2, 10, 9):
        make(tmp_path, step)
    found = checkpoints.newest(tmp_path)
    assert found == tmp_path / "checkpoint-10"
    assert checkpoints.step(found) == 10
    assert checkpoints.newest(tmp_path / "missing") is None


def test_what_is_no_checkpoint_is_none(tmp_path: Path) -> None:
    checkpoints.seal(shutil.copytree(make(tmp_path, 1), tmp_path / "checkpoint-best"))
    (tmp_path / "checkpoint-7").write_text("a file")
    assert checkpoints.newest(tmp_path) == tmp_path / "checkpoint-1"


def _link(path: Path) -> None:
    elsewhere = path.parent.parent / f"{path.name} elsewhere"
    path.rename(elsewhere)
    path.symlink_to(elsewhere)


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


DAMAGES: dict[str, Callable[[Path], object]] = {
    "one bit": _flip,
    "truncated": lambda path: os.truncate(path, path.stat().st_size - 1),
    "empty": lambda path: path.write_bytes(b""),
    "longer": lambda path: path.write_bytes(path.read_bytes() + b"x"),
    "gone": Path.unlink,
    "a link to the same": _link,
    "another beside it": lambda path: path.with_name("pytorch_model.bin").write_bytes(b""),
    "a folder beside it": lambda path: make(path.parent / "more", 1),
}


@pytest.mark.parametrize("name", [*FILES, SEAL])
@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())
def test_what_is_damaged_gives_way_to_the_one_before_and_is_removed(
    damage: Callable[[Path], object], name: str, tmp_path: Path
) -> None:
    before, damaged = make(tmp_path, 4), make(tmp_path, 6)
    assert checkpoints.newest(tmp_path) == damaged
    damage(damaged / name)
    assert checkpoints.newest(tmp_path) == before
    assert not damaged.exists()
    damage(before / name)
    assert checkpoints.newest(tmp_path) is None


def test_without_a_seal_nothing_is_whole(tmp_path: Path) -> None:
    folder = make(tmp_path, 3)
    (folder / SEAL).unlink()
    assert not checkpoints.is_whole(folder)
    checkpoints.seal(folder)
    assert checkpoints.is_whole(folder)
    assert not checkpoints.is_whole(tmp_path / "nowhere")


def test_what_is_changed_can_be_sealed_again(tmp_path: Path) -> None:
    folder = make(tmp_path, 3)
    (folder / "optimizer.pt").write_bytes(b"others")
    checkpoints.seal(folder)
    assert checkpoints.is_whole(folder)
