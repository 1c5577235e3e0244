"""The artifacts directory as a whole: for one run at a time, and writable from its start."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from quantship import disk
from quantship.errors import QuantshipError, UsageError

LOCK = ".lock"


@contextmanager
def alone(root: Path, run: str) -> Iterator[None]:
    """Hold an artifacts directory for one run.

    The system gives the lock back when its holder ends, however that ends.

    Args:
        root: The directory, made where there is none.
        run: Name of the run, whose report will lie in ``runs``.

    Raises:
        UsageError: Another run holds it, or it cannot be written to.
    """
    try:
        root.mkdir(parents=True, exist_ok=True)
        held = FileLock(root / LOCK).acquire(timeout=0)
    except Timeout as error:
        raise UsageError(
            f"another run is using {root}; wait for it, or give --artifacts"
        ) from error
    except OSError as error:
        raise UsageError(_refused(root, error)) from error
    with held:
        _require_writable(root, run)
        yield


@contextmanager
def explained(root: Path) -> Iterator[None]:
    """What the disk of an artifacts directory refuses is told in words.

    Raises:
        QuantshipError: A file in it could not be written; what raised any other error is as it was.
    """
    try:
        yield
    except QuantshipError:
        raise
    except Exception as error:
        full = disk.complaint(error, root)
        if full is not None:
            raise QuantshipError(full) from error
        if isinstance(error, OSError) and (path := _inside(error, root)) is not None:
            raise QuantshipError(
                f"{path}: {error.strerror}\n    What is finished is kept. When that is put right, "
                "the same command goes on."
            ) from error
        raise


def _require_writable(root: Path, run: str) -> None:
    """Raise UsageError where a run could not put its artifacts and its report."""
    runs, models = root / "runs", root / "runs" / run / "models"
    try:
        for folder in (root, root / "steps", runs, runs / run, models):
            if os.path.lexists(folder):
                probe = folder / ".writable"
                probe.touch()
                probe.unlink()
    except OSError as error:
        if error.errno not in disk.FULL:  # then what a killed run left goes first
            raise UsageError(_refused(root, error)) from error


def _refused(root: Path, error: OSError) -> str:
    full = disk.complaint(
        error, next(one for one in (root, *root.absolute().parents) if one.is_dir())
    )
    if full is not None:
        return f"artifacts cannot be kept in {root}: {full}"
    where = f" ({error.filename})" if error.filename else ""
    return (
        f"artifacts cannot be kept in {root}: {error.strerror or error}{where}\n"
        f"{_whose(root) if isinstance(error, PermissionError) else ''}"
        "    Give --artifacts with a directory that you may write to. This one can still be read: "
        "quantship run --plan, compare and inspect write nothing into it."
    )


def _whose(root: Path) -> str:
    """What to do where the directory is another user's, as what a container mounts may be."""
    if os.name == "nt":
        return ""
    place = next(one for one in (root, *root.absolute().parents) if one.is_dir())
    owner, here = place.stat().st_uid, os.geteuid()
    if owner == here:
        return ""
    return (
        f"    {place.absolute()} belongs to user {owner}, and this runs as user {here}: start a "
        'container with --user "$(id -u):$(id -g)".\n'
    )


def _inside(error: OSError, root: Path) -> Path | None:
    """The file below a directory that an error is about; of a renaming or a link, its end."""
    for name in (error.filename2, error.filename):
        if isinstance(name, str | os.PathLike):
            path = Path(name).absolute()
            if path.is_relative_to(root.absolute()):
                return path
    return None
