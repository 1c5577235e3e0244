from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from accelerate.data_loader import SeedableRandomSampler
from datasets import Dataset

from quantship.data.prepare import collate
from quantship.parallel.batches import ShareLoader, counts
from quantship.parallel.share import share

LENGTHS = [3, 5, 2, 4, 6, 2, 7, 3, 4, 5, 2]
ROWS = [[10 * index + place for place in range(size)] for index, size in enumerate(LENGTHS, 1)]
KINDS: dict[str, Dataset] = {
    "language": Dataset.from_dict({"input_ids": ROWS, "labels": ROWS}),
    "texts": Dataset.from_dict({"input_ids": ROWS, "labels": [index % 3 for index in range(11)]}),
    "samples": Dataset.from_dict(
        {"features": [[float(row[0])] * 4 for row in ROWS], "labels": [1] * 11}
    ),
}


def loaders(kind: str, processes: int, **given: Any) -> list[ShareLoader]:
    shared = share(given.get("batch_size", 4), given.get("accumulation", 1), processes)
    made = partial(collate, pad_token_id=0)
    return [
        ShareLoader(KINDS[kind], made, shared, index, seed=7, pin_memory=False)
        for index in range(processes)
    ]


def firsts(batch: dict[str, torch.Tensor]) -> list[int]:
    """What tells the sequences of a micro-batch that count."""
    rows = batch.get("input_ids", batch.get("features"))
    assert rows is not None
    return [int(row[0]) for row in rows[counts(batch["labels"])]]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("processes", [2, 4])
@pytest.mark.parametrize("epoch", [0, 3])
def test_each_sequence_is_learnt_from_once_in_the_order_of_one_process(
    kind: str, processes: int, epoch: int
) -> None:
    team = loaders(kind, processes)
    for loader in team:
        loader.set_epoch(epoch)
    order = SeedableRandomSampler(range(len(ROWS)), data_seed=7)
    order.set_epoch(epoch)
    seen = [
        one for batches in zip(*team, strict=True) for batch in batches for one in firsts(batch)
    ]
    assert seen == [ROWS[index][0] for index in order]


@pytest.mark.parametrize("kind", KINDS)
def test_all_processes_compute_as_much(kind: str) -> None:
    for loader in loaders(kind, 4, batch_size=2, accumulation=4):
        sizes = [len(batch["labels"]) for batch in loader]
        assert sizes == [2] * 2  # 11 sequences are a step of 8 and one of 3, filled up
        assert len(loader) == 2


def test_what_fills_up_attends_to_itself_and_teaches_nothing() -> None:
    (*_, last) = loaders("language", 4, batch_size=2, accumulation=4)[-1]
    assert not counts(last["labels"]).any()
    assert bool((last["attention_mask"].sum(dim=1) == 1).all())
    assert not last["input_ids"].any()


def test_a_full_micro_batch_is_the_usual_one() -> None:
    (loader,) = loaders("language", 1)
    first = next(iter(loader))
    order = list(SeedableRandomSampler(range(len(ROWS)), data_seed=7))
    usual = collate([KINDS["language"][index] for index in order[:4]], 0)
    assert all(torch.equal(first[name], usual[name]) for name in usual)
