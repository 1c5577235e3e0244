"""The training sequences that calibration looks at."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from quantship.data.prepare import collate
from quantship.errors import QuantshipError

if TYPE_CHECKING:
    from torch import Tensor


def sequences(data: Path, count: int, seed: int | None = None) -> list[dict[str, Tensor]]:
    """Some sequences of prepared training data, as a model is called with them, one by one.

    Args:
        data: Directory of the prepared data.
        count: How many; all there are where there are fewer.
        seed: Which ones: a random choice by this seed, in random order; None: the first ones.

    Raises:
        QuantshipError: There is no training data.
    """
    import torch
    from datasets import load_from_disk

    if not (data / "train").is_dir():
        raise QuantshipError("calibration needs training data, and data.train names none")
    dataset = load_from_disk(str(data / "train"))
    rows = list(range(len(dataset)))
    if seed is not None:
        generator = torch.Generator().manual_seed(seed)
        rows = torch.randperm(len(dataset), generator=generator).tolist()
    # One by one: padding would count as data.
    return [collate([dataset[row]], pad_token_id=0) for row in rows[:count]]
