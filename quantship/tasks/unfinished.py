"""Examples of an evaluation that is not done yet, so that a killed one goes on where it was."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from quantship.tasks.base import Example

FILE = "examples.jsonl"


def read(directory: Path) -> list[Example]:
    """The examples that ``append`` left in a directory, in order; a torn last line is taken off."""
    path = directory / FILE
    if not path.is_file():
        return []
    whole = path.read_bytes()
    kept = whole[: whole.rfind(b"\n") + 1]
    if len(kept) < len(whole):
        path.write_bytes(kept)
    return [Example(**json.loads(line)) for line in kept.splitlines()]


def append(examples: Sequence[Example], directory: Path) -> None:
    """Keep more examples, each in a line of its own."""
    directory.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps(asdict(example), allow_nan=False) + "\n" for example in examples]
    with (directory / FILE).open("a", encoding="utf-8", newline="\n") as file:
        file.writelines(lines)
