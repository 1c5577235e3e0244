"""Errors of libraries over broken files, as errors that name the file."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from quantship.errors import QuantshipError


@contextmanager
def reading(*paths: Path | str, passing: tuple[type[Exception], ...] = ()) -> Iterator[None]:
    """Turn whatever reading these paths raises into an error that names them.

    A file that is wrong in one place makes libraries fail in another, in ways beyond counting. What
    this package asserts is no matter of files, and stays as it is; so does a lack of memory.

    Args:
        paths: What is read.
        passing: Errors that the caller's contract names.

    Raises:
        QuantshipError: In place of any other error.
    """
    own: tuple[type[Exception], ...] = (QuantshipError, AssertionError, MemoryError, *passing)
    try:
        yield
    except own:
        raise
    except Exception as error:
        first = (str(error).strip().splitlines() or [""])[0][:300]
        named = " or ".join(map(str, paths))
        said = f"{type(error).__name__}: {first}" if first else type(error).__name__
        raise QuantshipError(f"{named} cannot be read: {said}") from error
