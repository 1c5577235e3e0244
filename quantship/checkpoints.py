"""Folders of unfinished work, each sealed when it is whole: no torn or changed one is gone on from.

A seal is a file in the folder with the digest of every other one, and it is written last.
"""

from __future__ import annotations

import re
from pathlib import Path

from quantship import sealed
from quantship.artifact import digests, remove

SEAL = "seal.json"
_NAME = re.compile(r"checkpoint-(\d+)")


def seal(folder: Path) -> None:
    """Say of a folder that it is whole, and what is in it."""
    (folder / SEAL).unlink(missing_ok=True)
    text = sealed.dumps({"files": digests(folder)})
    partial = folder / f".{SEAL}.partial"
    partial.write_text(text)
    partial.replace(folder / SEAL)


def is_whole(folder: Path) -> bool:
    """Whether a folder has a seal, and nothing in it has changed since."""
    try:
        listed = sealed.loads((folder / SEAL).read_bytes())["files"]
        files = digests(folder)
        return bool(listed == {name: files[name] for name in files if name != SEAL})
    except (OSError, ValueError, KeyError):
        return False


def newest(resume: Path) -> Path | None:
    """Trainer's newest checkpoint that is whole; those after it are removed.

    Trainer writes into the folder of a step that it comes to again, whatever is there.
    """
    for path in sorted(resume.glob("checkpoint-*"), key=step, reverse=True):
        if step(path) >= 0 and is_whole(path):
            return path
        remove(path)
    return None


def step(checkpoint: Path) -> int:
    """Optimizer steps before a checkpoint; -1 for what is none."""
    found = _NAME.fullmatch(checkpoint.name)
    return int(found[1]) if found else -1
