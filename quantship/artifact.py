"""Content-addressed, atomic stage directories.

A finished artifact is a directory with ``artifact.json`` in it, and it appears in one rename: what
a killed run leaves behind is called ``.partial`` and is never read again. Its place is found from
its fingerprint, the hash of everything that went into it, so equal work is found, not repeated.

    <root>/steps/<stage>-<fingerprint>/             finished
    <root>/steps/<stage>-<fingerprint>.partial/     what a failed or killed run left
    <root>/steps/<stage>-<fingerprint>.resume/      Trainer checkpoints of unfinished training
    <root>/runs/<recipe>/                           report, and links to the models
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from quantship.frozen import Frozen

Facts = dict[str, Any]
MANIFEST = "artifact.json"


class Manifest(Frozen):
    """What ``artifact.json`` holds. Paths are relative, so the whole root can be moved."""

    schema_version: Literal[1] = 1
    stage: str
    fingerprint: str
    settings: dict[str, Any]
    """The stage's own settings, without what does not change its result."""
    inputs: dict[str, str]
    """Fingerprint of each input, by role."""
    facts: Facts
    """What the stage found out."""
    duration_s: float
    finished: str
    """Time of day in UTC."""
    files: dict[str, str]
    """SHA-256 of each file, by its path in the directory."""


@dataclass(frozen=True)
class Artifact:
    """A finished directory that a later stage may read.

    Args:
        path: The directory.
        stage: Stage that made it, or ``model`` for a directory from outside.
        fingerprint: Hash of everything that went into it, in hexadecimal.
        facts: What the stage found out, JSON values only.
    """

    path: Path
    stage: str
    fingerprint: str
    facts: Mapping[str, Any]


def fingerprint(
    stage: str, revision: int, settings: Mapping[str, Any], inputs: Mapping[str, str]
) -> str:
    """Hash a stage's name, its revision number, its settings and its inputs' fingerprints."""
    parts = {"stage": stage, "revision": revision, "settings": settings, "inputs": dict(inputs)}
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def digest_file(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest_tree(path: Path) -> str:
    """SHA-256 over names and contents of all files below a directory, hidden ones left out."""
    whole = hashlib.sha256()
    for file in _files(path):
        whole.update(f"{file.relative_to(path).as_posix()}\0{digest_file(file)}\n".encode())
    return whole.hexdigest()


def directory(root: Path, stage: str, fingerprint: str) -> Path:
    """Where the artifact with this fingerprint lies, or will lie."""
    return root / "steps" / f"{stage}-{fingerprint[:16]}"


def find(root: Path, stage: str, fingerprint: str) -> Artifact | None:
    """The finished artifact with this fingerprint, its files verified; None if there is none.

    Only looks: a directory whose files are not those its manifest lists stays as it is until
    ``finish`` puts a sound one in its place.
    """
    path = directory(root, stage, fingerprint)
    try:
        manifest = Manifest.model_validate_json((path / MANIFEST).read_bytes())
        intact = manifest.fingerprint == fingerprint and all(
            digest_file(path / name) == digest for name, digest in manifest.files.items()
        )
    except (OSError, ValueError):
        return None
    return Artifact(path, stage, fingerprint, manifest.facts) if intact else None


def begin(path: Path) -> Path:
    """An empty ``.partial`` directory to write the artifact of ``path`` into."""
    partial = path.with_name(path.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    return partial


def finish(
    partial: Path,
    *,
    stage: str,
    fingerprint: str,
    settings: Mapping[str, Any],
    inputs: Mapping[str, str],
    facts: Facts,
    duration_s: float,
) -> Artifact:
    """Write the manifest last, flush it, and move the directory to its final place.

    Raises:
        ValueError: The facts hold NaN or infinity, which JSON cannot.
    """
    manifest = Manifest(
        stage=stage,
        fingerprint=fingerprint,
        settings=dict(settings),
        inputs=dict(inputs),
        facts=facts,
        duration_s=round(duration_s, 3),
        finished=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        files={file.relative_to(partial).as_posix(): digest_file(file) for file in _files(partial)},
    )
    text = json.dumps(manifest.model_dump(), indent=2, allow_nan=False)
    with (partial / MANIFEST).open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    final = partial.with_name(partial.name.removesuffix(".partial"))
    _replace(partial, final)
    return Artifact(final, stage, fingerprint, json.loads(text)["facts"])


def size_bytes(path: Path) -> int:
    """Bytes of all files below a directory, the manifest left out."""
    return sum(file.stat().st_size for file in _files(path) if file.name != MANIFEST)


def _files(path: Path) -> list[Path]:
    files = (file for file in path.rglob("*") if file.is_file())
    return sorted(
        file
        for file in files
        if not any(part.startswith(".") for part in file.relative_to(path).parts)
    )


def _replace(source: Path, target: Path) -> None:
    shutil.rmtree(target, ignore_errors=True)
    source.rename(target)
