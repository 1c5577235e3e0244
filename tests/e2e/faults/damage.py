"""What can become of a file on a disk, one function each."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

Damage = Callable[[Path, random.Random], None]
BITS = (0, 1, 2, 3, 4, 6, 7)
"""Without the one between ``1e-05`` and ``1E-05``, which are the same."""


def _flip(path: Path, generator: random.Random) -> None:
    content = bytearray(path.read_bytes() or b"\x00")
    content[generator.randrange(len(content))] ^= 1 << generator.choice(BITS)
    path.write_bytes(content)


def _truncate(path: Path, generator: random.Random) -> None:
    size = path.stat().st_size
    path.write_bytes(path.read_bytes()[: generator.randrange(size)] if size else b"\x00")


def _empty(path: Path, generator: random.Random) -> None:
    path.write_bytes(b"" if path.stat().st_size else b"\x00")


def _zero(path: Path, generator: random.Random) -> None:
    path.write_bytes(bytes(path.stat().st_size or 1))


def _lengthen(path: Path, generator: random.Random) -> None:
    path.write_bytes(path.read_bytes() + generator.randbytes(512))


def _delete(path: Path, generator: random.Random) -> None:
    path.unlink()


def _swap(path: Path, generator: random.Random) -> None:
    """Another file's content, of the same name where there is one beside its folder."""
    content = path.read_bytes()
    near = sorted(one for one in path.parents[1].rglob("*") if one.is_file())
    others = [one for one in near if one.read_bytes() != content]
    alike = [one for one in others if one.name == path.name]
    path.write_bytes(generator.choice(alike or others).read_bytes())


def _be_a_folder(path: Path, generator: random.Random) -> None:
    path.unlink()
    path.mkdir()
    (path / "x").touch()


def _be_a_link(path: Path, generator: random.Random) -> None:
    """To the very content, which lies elsewhere now and may change at any time."""
    outside = path.parents[2] / f".outside-{generator.randrange(10**12)}"
    path.rename(outside)
    path.symlink_to(outside)


def _lead_nowhere(path: Path, generator: random.Random) -> None:
    path.unlink()
    path.symlink_to("nowhere")


def _be_a_pipe(path: Path, generator: random.Random) -> None:
    path.unlink()
    os.mkfifo(path)


CONTENT: dict[str, Damage] = {
    "one bit": _flip,
    "truncated": _truncate,
    "empty": _empty,
    "zeroes": _zero,
    "longer": _lengthen,
    "deleted": _delete,
    "another's content": _swap,
}
"""What leaves a plain file, or nothing."""
KIND: dict[str, Damage] = {
    "a folder": _be_a_folder,
    "a link out": _be_a_link,
    "a link to nowhere": _lead_nowhere,
    "a pipe": _be_a_pipe,
}
"""What leaves something else than a file."""
ALL = CONTENT | KIND


def restore(path: Path, whole: Path) -> None:
    """Put a file back as it was."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)
    shutil.copy2(whole, path)
