"""What a run leaves, read from the disk: whether it is whole, and whether it is as it should be."""

from __future__ import annotations

import json
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

from quantship.artifact import MANIFEST, digest_file

OF_THE_MOMENT = {
    *("seconds", "seconds_per_step", "tokens_per_s", "peak_rss_bytes", "duration_s"),
    *("resumed_from", "blocks_resumed", "created", "finished", "files", "digest"),
}
"""Keys, in whatever they are nested, of what is another in every run."""
LOGS = {MANIFEST, "lock.json", "export.log"}
"""Files that hold times; the first one's facts are compared all the same."""
MEASURED = ("benchmark",)
"""Stages that measure this machine: they are made, but never the same."""

Stamp = dict[str, tuple[int, int]]
"""Inode and time of the last change of each file."""


def outcome(root: Path, *, report: bool = True) -> dict[str, Any]:
    """All that a finished run made, to the bit, without what depends on the clock.

    Args:
        root: Artifacts' directory.
        report: Read the report too; without one it is a finished run no more.
    """
    found: dict[str, Any] = {}
    for directory in _finished_directories(root):
        if directory.name.startswith(MEASURED):
            found[directory.name] = "made"
            continue
        for file in sorted(path for path in directory.rglob("*") if path.is_file()):
            name = file.relative_to(directory).as_posix()
            if name not in LOGS:
                found[f"{directory.name}/{name}"] = digest_file(file)
        manifest = json.loads((directory / MANIFEST).read_bytes())
        found[f"{directory.name} facts"] = _digest(_lasting(manifest["facts"]))
    for folder in sorted((root / "runs").glob("*")) if report else ():
        written = json.loads((folder / "report.json").read_bytes())
        for row in written.get("models", ()):  # speeds
            row.pop("benchmark", None)
        for key, value in _lasting(written).items():
            found[f"runs/{folder.name}: {key}"] = _digest(value)
        names = sorted(path.name for path in folder.iterdir())
        found[f"runs/{folder.name} files"] = names
    return found


def finished(root: Path) -> dict[str, Stamp]:
    """Artifacts that are whole, their files held against their manifests, with their stamps."""
    return {path.name: _stamp(path) for path in _finished_directories(root) if is_whole(path)}


def is_whole(directory: Path) -> bool:
    """Whether an artifact's files are those that its manifest lists."""
    try:
        listed = json.loads((directory / MANIFEST).read_bytes())["files"]
        return all(digest_file(directory / name) == digest for name, digest in listed.items())
    except (OSError, ValueError, KeyError, TypeError):
        return False


def leftovers(root: Path) -> list[str]:
    """What an unfinished run leaves beside its artifacts."""
    ends = (".partial", ".resume", ".replaced")
    return sorted(path.name for path in root.glob("steps/*") if path.name.endswith(ends))


def _finished_directories(root: Path) -> Iterator[Path]:
    for path in sorted(root.glob("steps/*")):
        if "." not in path.name and (path / MANIFEST).exists():
            yield path


def _stamp(directory: Path) -> Stamp:
    return {
        file.relative_to(directory).as_posix(): (file.stat().st_ino, file.stat().st_mtime_ns)
        for file in directory.rglob("*")
        if file.is_file()
    }


def _lasting(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _lasting(one) for key, one in value.items() if key not in OF_THE_MOMENT}
    return [_lasting(one) for one in value] if isinstance(value, list) else value


def _digest(value: Any) -> str:
    return sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
