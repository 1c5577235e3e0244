"""Sequences written as a data set that ``datasets.load_from_disk`` reads, a few at a time."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from quantship.data.digest import update
from quantship.data.spool import Row
from quantship.data.templating import IGNORED

if TYPE_CHECKING:
    from datasets import Features

TOKENS_AT_ONCE = 2**18
ROWS_AT_ONCE = 1000
FILE_TOKENS = 2**26
"""Tokens of a file: half a gigabyte."""


@dataclass
class Written:
    """What was written.

    Args:
        sequences: How many.
        tokens: In all of them.
        loss_tokens: Labels that some token predicts; a sequence's first is predicted by none.
        digest: As ``data.digest.digest`` finds it.
    """

    sequences: int = 0
    tokens: int = 0
    loss_tokens: int = 0
    digest: str = ""


def write(rows: Iterable[Row], out: Path) -> Written:
    """Write columns ``input_ids`` and ``labels`` (int32 lists) into a new directory.

    Memory holds a few hundred thousand tokens, and nothing is written outside the directory.
    """
    from datasets import Dataset, Features, List, Value

    features = Features(input_ids=List(Value("int32")), labels=List(Value("int32")))
    empty: dict[str, list[Any]] = {"input_ids": [], "labels": []}
    Dataset.from_dict(empty, features=features).save_to_disk(str(out))  # for its description
    for file in out.glob("*.arrow"):
        file.unlink()
    written = Written()
    files = list(_files(_counted(rows, written), out, features))
    names = []
    for index, file in enumerate(files):
        names.append(f"data-{index:05d}-of-{len(files):05d}.arrow")
        file.rename(out / names[-1])
    state = json.loads((out / "state.json").read_text())
    # Equal data sets have equal fingerprints, and others have others.
    state.update(_data_files=[{"filename": name} for name in names])
    state.update(_fingerprint=written.digest[:16])
    (out / "state.json").write_text(json.dumps(state, indent=2, sort_keys=True))
    return written


def count(rows: Iterable[Row]) -> Written:
    """What ``write`` would say of these rows, without writing them."""
    written = Written()
    for _ in _counted(rows, written):
        pass
    return written


def _counted(rows: Iterable[Row], written: Written) -> Iterator[Row]:
    whole = hashlib.sha256()
    for input_ids, labels in rows:
        written.sequences += 1
        written.tokens += len(input_ids)
        written.loss_tokens += int((labels[1:] != IGNORED).sum())
        update(whole, "input_ids", input_ids)
        update(whole, "labels", labels)
        yield input_ids, labels
    written.digest = whole.hexdigest()


def _files(rows: Iterable[Row], out: Path, features: Features) -> Iterator[Path]:
    """Write files of a bounded size; one at least, as a data set must have one."""
    import pyarrow as pa

    schema = features.arrow_schema
    batches = _batches(rows)
    batch: list[Row] | None = next(batches, [])
    index = 0
    while batch is not None:
        path, tokens = out / f"part-{index}.arrow", 0
        with path.open("wb") as file, pa.ipc.new_stream(file, schema) as stream:
            while batch is not None and tokens < FILE_TOKENS:
                columns = [_column([row[part] for row in batch]) for part in (0, 1)]
                stream.write_batch(pa.RecordBatch.from_arrays(columns, schema=schema))
                tokens += sum(len(row[0]) for row in batch)
                batch = next(batches, None)
        yield path
        index += 1


def _batches(rows: Iterable[Row]) -> Iterator[list[Row]]:
    held: list[Row] = []
    tokens = 0
    for row in rows:
        held.append(row)
        tokens += len(row[0])
        if tokens >= TOKENS_AT_ONCE or len(held) >= ROWS_AT_ONCE:
            yield held
            held, tokens = [], 0
    if held:
        yield held


def _column(lists: list[Any]) -> Any:
    import pyarrow as pa

    ends = np.cumsum([0, *map(len, lists)], dtype=np.int32)
    values = np.concatenate(lists) if lists else np.empty(0, dtype=np.int32)
    return pa.ListArray.from_arrays(ends, values)
