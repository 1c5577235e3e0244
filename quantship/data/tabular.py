"""Records of a local file by its ending: tab-separated, CSV, JSON Lines or Parquet."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, Literal

from quantship.data.files import json_lines, readable, text_lines
from quantship.errors import DataError

Record = Mapping[str, Any]
_SEPARATORS: dict[str, tuple[str, Literal[0, 3]]] = {
    ".tsv": ("\t", csv.QUOTE_NONE),
    ".txt": ("\t", csv.QUOTE_NONE),
    ".csv": (",", csv.QUOTE_MINIMAL),
}


def records(
    path: Path, headless: Sequence[str] | None = None, *, skip_ragged: bool = False
) -> Iterator[tuple[str, Record]]:
    """Yield ``(path:line, record)`` for every record of a file; memory holds one at a time.

    A ``.tsv`` or ``.txt`` file is separated by tabs and knows no quotes, a ``.csv`` file by commas
    with quotes; both begin with a line of names, unless ``headless`` gives them. ``.jsonl`` and
    ``.json`` files hold one JSON object a line. A ``.parquet`` file's records are numbered from 0
    and named as ``path[index]``.

    Args:
        path: The file; its ending says what it is.
        headless: Names of the columns of separated values, where the first line has none.
        skip_ragged: Pass over lines with more or fewer columns than the first.

    Raises:
        DataError: The ending is none of these, the file cannot be read, or a line is malformed.
    """
    ending = path.suffix.lower()
    if ending in (".jsonl", ".json"):
        yield from json_lines(path)
    elif ending in _SEPARATORS:
        yield from _separated(path, headless, ending, skip_ragged)
    elif ending == ".parquet":
        yield from _parquet(path)
    else:
        known = ", ".join((*_SEPARATORS, ".jsonl", ".json", ".parquet"))
        raise DataError(f"cannot tell what '{ending}' holds; known endings are {known}", str(path))


def _separated(
    path: Path, headless: Sequence[str] | None, ending: str, skip_ragged: bool
) -> Iterator[tuple[str, Record]]:
    origin = ""  # where the record at hand begins; a quoted value may go on over several lines

    def lines() -> Iterator[str]:
        nonlocal origin
        for place, line in text_lines(path):
            origin = origin or place
            yield line

    separator, quoting = _SEPARATORS[ending]
    rows = csv.reader(lines(), delimiter=separator, quoting=quoting, strict=True)
    names = headless
    while True:
        origin = ""
        try:
            row = next(rows, None)
        except csv.Error as error:
            raise DataError(f"not separated values: {error}", origin) from error
        if row is None:
            return
        if names is None:
            names = row
        elif len(row) == len(names):
            yield origin, dict(zip(names, row, strict=True))
        elif row and not skip_ragged:  # a blank line holds no record
            raise DataError(f"{len(row)} columns, and the file has {len(names)}", origin)


def _parquet(path: Path) -> Iterator[tuple[str, Record]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    with readable(path), path.open("rb") as file:
        try:
            batches = pq.ParquetFile(file).iter_batches(batch_size=1024)
            records = chain.from_iterable(batch.to_pylist() for batch in batches)
            for index, record in enumerate(records):
                yield f"{path}[{index}]", record
        except pa.ArrowException as error:
            raise DataError(f"not Parquet that can be read: {error}", str(path)) from error
