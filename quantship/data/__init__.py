"""Data adapters: one file each, ending in chat messages, or in samples of features."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from quantship.data import (
    alpaca,
    builtin,
    chat,
    digits,
    glue,
    gsm8k,
    hub,
    mbpp,
    sharegpt,
    squad,
    superglue,
    wikitext,
)
from quantship.data.source import (
    Example,
    FileOptions,
    Labelled,
    Message,
    Question,
    Sample,
    SourceOptions,
)

__all__ = [
    "Example",
    "Labelled",
    "Message",
    "Question",
    "Sample",
    "Source",
    "class_names",
    "holds_classes",
    "holds_questions",
    "holds_samples",
    "hub_dataset",
    "labelled",
    "local_files",
    "questions",
    "rows",
    "samples",
]

Source = Annotated[
    alpaca.Options
    | builtin.Options
    | chat.Options
    | digits.Options
    | glue.Options
    | gsm8k.Options
    | hub.Options
    | mbpp.Options
    | sharegpt.Options
    | squad.Options
    | superglue.Options
    | wikitext.Options,
    Field(discriminator="adapter"),
]
_FILES = alpaca.Options | chat.Options | sharegpt.Options
_ROWS: dict[type[SourceOptions], Callable[[Any], Iterator[Example]]] = {
    adapter.Options: adapter.rows
    for adapter in (
        *(alpaca, builtin, chat, glue, gsm8k, hub, mbpp, sharegpt, squad, superglue, wikitext),
    )
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


def holds_questions(source: Source) -> bool:
    """Whether the source's records are answered by choosing, so that ``questions`` reads it."""
    return isinstance(source, glue.Options | superglue.Options)


def holds_classes(source: Source) -> bool:
    """Whether the source's records belong to classes, so that ``labelled`` reads it."""
    return bool(class_names(source))


def class_names(source: Source) -> tuple[str, ...]:
    """The classes of a source's records in the order of their numbers; empty: it has none."""
    if isinstance(source, glue.Options):
        return glue.class_names(source)
    return superglue.class_names(source) if isinstance(source, superglue.Options) else ()


def labelled(source: Source) -> Iterator[Labelled]:
    """Yield the records of a source that holds classes, ``source.limit`` of them at most.

    Raises:
        DataError: A record cannot be used, or its label is kept secret; names its file and line.
    """
    assert holds_classes(source)
    if isinstance(source, glue.Options):
        return islice(glue.labelled(source), source.limit)
    assert isinstance(source, superglue.Options)
    return islice(superglue.labelled(source), source.limit)


def questions(source: Source) -> Iterator[Question]:
    """Yield the records of a source that holds questions, ``source.limit`` of them at most.

    Raises:
        DataError: A record cannot be used, or its label is kept secret; names its file and line.
    """
    assert holds_questions(source)
    if isinstance(source, glue.Options):
        return islice(glue.questions(source), source.limit)
    assert isinstance(source, superglue.Options)
    return islice(superglue.questions(source), source.limit)


def local_files(source: Source) -> tuple[Path, ...]:
    """Files on this machine that the source reads; their content belongs to a fingerprint."""
    if isinstance(source, hub.Options):
        return _files_below(hub.local_directory(source.dataset))
    if isinstance(source, FileOptions | _FILES) and source.path is not None:
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
