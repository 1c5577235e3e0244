"""Data adapters: one file each, ending in chat messages, or in samples of features."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from quantship.data import builtin, chat, digits, gsm8k, hub, mbpp, squad, wikitext
from quantship.data.source import Example, FileOptions, Message, Sample, SourceOptions

__all__ = [
    "Example",
    "Message",
    "Sample",
    "Source",
    "holds_samples",
    "hub_dataset",
    "local_files",
    "rows",
    "samples",
]

Source = Annotated[
    builtin.Options
    | chat.Options
    | digits.Options
    | gsm8k.Options
    | hub.Options
    | mbpp.Options
    | squad.Options
    | wikitext.Options,
    Field(discriminator="adapter"),
]
_ROWS: dict[type[SourceOptions], Callable[[Any], Iterator[Example]]] = {
    adapter.Options: adapter.rows for adapter in (builtin, chat, gsm8k, hub, mbpp, squad, wikitext)
}


def rows(source: Source) -> Iterator[Example]:
    """Yield the source's records as chat messages, ``source.limit`` of them at most.

    Raises:
        DataError: A record cannot be used; names its file and line. Raised when it is reached.
    """
    return islice(_ROWS[type(source)](source), source.limit)


def holds_samples(source: Source) -> bool:
    """Whether the source holds features and their classes rather than text."""
    return isinstance(source, digits.Options)


def samples(source: Source) -> Iterator[Sample]:
    """Yield the records of a source that holds samples, ``source.limit`` of them at most.

    Raises:
        QuantshipError: What the source needs is not installed.
    """
    assert isinstance(source, digits.Options)
    return islice(digits.samples(source), source.limit)


def local_files(source: Source) -> tuple[Path, ...]:
    """Files on this machine that the source reads; their content belongs to a fingerprint."""
    if isinstance(source, hub.Options):
        return _files_below(hub.local_directory(source.dataset))
    if isinstance(source, FileOptions | chat.Options) and source.path is not None:
        return (source.path,)
    return ()


def hub_dataset(source: Source) -> tuple[str, str] | None:
    """Hub id and revision of the data set that the source reads; None where it reads none."""
    if isinstance(source, hub.Options) and hub.local_directory(source.dataset) is None:
        return source.dataset, source.revision
    if isinstance(source, FileOptions) and source.path is None:
        return source.hub, source.revision
    return None


def _files_below(directory: Path | None) -> tuple[Path, ...]:
    if directory is None:
        return ()
    return tuple(sorted(file for file in directory.rglob("*") if file.is_file()))
