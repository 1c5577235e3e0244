"""Content-addressed, atomic stage directories.

A finished artifact is a directory with ``artifact.json`` in it, and it appears in one rename: what
a killed run leaves behind is called ``.partial`` and is never read again. Its place is found from
its fingerprint, the hash of everything that went into it, so equal work is found, not repeated.

    <root>/steps/<stage>-<fingerprint>/             finished
    <root>/steps/<stage>-<fingerprint>.partial/     what a failed or killed run left
    <root>/steps/<stage>-<fingerprint>.resume/      what such a run goes on from
    <root>/steps/<stage>-<fingerprint>.replaced/    a damaged one, on its way out
    <root>/runs/<recipe>/                           report, and links to the models

What is finished is plain files in plain directories. Before it is used again each of them is read
and held against its digest, and the manifest against its own; a link in the place of a file is no
such file, wherever it leads.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from quantship import sealed
from quantship.errors import UsageError
from quantship.frozen import Frozen

Facts = dict[str, Any]
MANIFEST = "artifact.json"
MOST_STRAYS = 5
"""Files that are not an artifact's own, of which an error names no more."""


class Manifest(Frozen):
    """What ``artifact.json`` holds, beside a digest of all of it.

    Paths are relative, so the whole root can be moved.
    """

    schema_version: Literal[2] = 2
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
        files: SHA-256 of each of its files, by path in the directory; empty for one from outside.
    """

    path: Path
    stage: str
    fingerprint: str
    facts: Mapping[str, Any]
    files: Mapping[str, str] = field(default_factory=dict)


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


def digests(path: Path) -> dict[str, str]:
    """SHA-256 of each file below a directory, by its path in it; hidden ones left out.

    Raises:
        ValueError: Something there is neither a plain file nor a directory.
    """
    there = _names(path)
    others = [name for name, is_plain in there.items() if not is_plain]
    if others:
        raise ValueError(f"{path / others[0]} is no plain file")
    return {name: digest_file(path / name) for name in sorted(there)}


def directory(root: Path, stage: str, fingerprint: str) -> Path:
    """Where the artifact with this fingerprint lies, or will lie."""
    return root / "steps" / f"{stage}-{fingerprint[:16]}"


def find(root: Path, stage: str, fingerprint: str) -> Artifact | None:
    """The finished artifact with this fingerprint, its files verified; None if there is none.

    Only looks: a directory whose files are not those its manifest lists stays as it is until
    ``finish`` puts a sound one in its place.

    Raises:
        UsageError: As ``verified``.
    """
    path = directory(root, stage, fingerprint)
    manifest = verified(path)
    if manifest is None or (manifest.stage, manifest.fingerprint) != (stage, fingerprint):
        return None
    return Artifact(path, stage, fingerprint, manifest.facts, manifest.files)


def verified(path: Path) -> Manifest | None:
    """What the manifest of a directory says, if all its files are as that lists them; else None.

    Raises:
        UsageError: It cannot be read, or it is sound and others have put files into it, which
            libraries might read: neither is a reason to make anew what took hours.
    """
    try:
        there = _names(path)
        if not there.get(MANIFEST):
            return None
        manifest = read_manifest(path)
        sound = all(
            there.get(name) and digest_file(path / name) == digest
            for name, digest in manifest.files.items()
        )
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None
    except OSError as error:
        raise UsageError(
            f"{error.filename or path} cannot be read: {error.strerror or error}\n    It may be "
            "another user's, or the disk may fail. Without it nobody can tell whether what is "
            "there can be used."
        ) from error
    if not sound:
        return None
    strays = sorted(there.keys() - manifest.files.keys() - {MANIFEST})
    if strays:
        more = f" and {len(strays) - MOST_STRAYS} more" if len(strays) > MOST_STRAYS else ""
        raise UsageError(
            f"{path} holds files that are not its own: {', '.join(strays[:MOST_STRAYS])}{more}\n"
            "    Move them elsewhere, for libraries may read them; its own files are as they were "
            "finished."
        )
    return manifest


def read_manifest(path: Path) -> Manifest:
    """What the manifest of a finished directory says.

    Raises:
        OSError: There is none.
        ValueError: It is damaged, or of another version.
    """
    return Manifest.model_validate(sealed.loads((path / MANIFEST).read_bytes()))


def begin(path: Path) -> Path:
    """An empty ``.partial`` directory to write the artifact of ``path`` into."""
    for left in (partial := _beside(path, "partial"), _beside(path, "replaced")):
        remove(left)
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
    """Write the manifest last, and move the directory to its final place once it is on the disk.

    Raises:
        ValueError: The facts hold NaN or infinity, which JSON cannot; or the stage has written a
            link.
    """
    files = digests(partial)
    manifest = Manifest(
        stage=stage,
        fingerprint=fingerprint,
        settings=dict(settings),
        inputs=dict(inputs),
        facts=facts,
        duration_s=round(duration_s, 3),
        finished=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        files=files,
    )
    text = sealed.dumps(manifest.model_dump(), indent=2)
    (partial / MANIFEST).write_text(text)
    for name in (*files, MANIFEST):
        _flush(partial / name)
    final = partial.with_name(partial.name.removesuffix(".partial"))
    _replace(partial, final)
    return Artifact(final, stage, fingerprint, json.loads(text)["facts"], files)


def tidy(path: Path) -> None:
    """Remove what lies beside a finished directory: what its job went on from, what it replaced."""
    for what in ("resume", "replaced"):
        remove(_beside(path, what))


def remove(path: Path) -> None:
    """Remove a directory, or whatever is in its place; of a link only the link."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


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


def _names(path: Path) -> dict[str, bool]:
    """All that lies below a directory, and whether it is a plain file; hidden ones left out."""
    return {
        Path(entry.path).relative_to(path).as_posix(): entry.is_file(follow_symlinks=False)
        for entry in _entries(path)
    }


def _entries(path: str | Path) -> Iterator[os.DirEntry[str]]:
    with os.scandir(path) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_dir(follow_symlinks=False):
                yield from _entries(entry.path)
            else:
                yield entry


def _flush(path: Path) -> None:
    """Have a file's bytes on the disk, so that a power cut cannot take them back."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def _replace(source: Path, target: Path) -> None:
    """Put a directory in the place of another, which is moved aside first.

    Whoever owns the other one, the directory that both lie in is what has to be writable.
    """
    old = _beside(target, "replaced")
    with suppress(FileNotFoundError):
        target.rename(old)
    source.rename(target)
    with suppress(OSError):  # not every system and not every disk can flush a directory
        names = os.open(target.parent, os.O_RDONLY)
        try:
            os.fsync(names)
        finally:
            os.close(names)
    remove(old)


def _beside(path: Path, what: str) -> Path:
    return path.with_name(f"{path.name}.{what}")
