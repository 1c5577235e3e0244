"""One number that says whether two models were evaluated on the same tokens."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

import numpy as np

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
    whole = sha256()
    for row in dataset.select(range(min(len(dataset), limit or len(dataset)))):
        for name, dtype in columns.items():
            values = np.asarray(row[name], dtype=dtype)
            whole.update(f"{name} {values.size}\n".encode())
            whole.update(values.tobytes())
    return whole.hexdigest()
