"""One number that says whether two models were evaluated on the same tokens."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from quantship.data.features import FEATURES


def digest(directory: Path, limit: int | None = None) -> str:
    """SHA-256 over the first sequences (or samples) of a prepared data set, in hexadecimal.

    It is of the numbers alone: neither the version of a library nor the layout of a file is in it.

    Args:
        directory: Where a data set was saved, with ``input_ids`` or ``features``, and ``labels``.
        limit: How many sequences count; None: all.
    """
    from datasets import load_from_disk

    dataset = load_from_disk(str(directory))
    samples = FEATURES in dataset.column_names
    columns = (
        {FEATURES: "<f4", "labels": "<i8"} if samples else {"input_ids": "<i4", "labels": "<i4"}
    )
    whole = hashlib.sha256()
    for row in dataset.select(range(min(len(dataset), limit or len(dataset)))):
        for name, dtype in columns.items():
            update(whole, name, np.asarray(row[name], dtype=dtype))
    return whole.hexdigest()


def update(whole: hashlib._Hash, name: str, values: npt.NDArray[Any]) -> None:
    """Take a row's values of one column into a digest; in the dtype that the column is read in."""
    whole.update(f"{name} {values.size}\n".encode())
    whole.update(values.tobytes())
