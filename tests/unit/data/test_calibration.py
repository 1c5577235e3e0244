from __future__ import annotations

from pathlib import Path

import pytest
import torch
from datasets import Dataset

from quantship.data.calibration import sequences
from quantship.errors import QuantshipError

NUM_ROWS = 20


@pytest.fixture
def data(tmp_path: Path) -> Path:
    rows = [[number] * (number + 1) for number in range(NUM_ROWS)]
    Dataset.from_dict({"input_ids": rows, "labels": rows}).save_to_disk(tmp_path / "train")
    return tmp_path


def firsts(found: list[dict[str, torch.Tensor]]) -> list[int]:
    return [int(batch["input_ids"][0, 0]) for batch in found]


def test_the_first_ones_without_a_seed(data: Path) -> None:
    assert firsts(sequences(data, 6)) == list(range(6))


def test_a_seed_chooses_and_chooses_the_same_again(data: Path) -> None:
    chosen = firsts(sequences(data, 6, seed=1))
    assert chosen == firsts(sequences(data, 6, seed=1))
    assert len(set(chosen)) == 6
    assert chosen != firsts(sequences(data, 6, seed=2))
    assert chosen != list(range(6))


def test_more_sequences_of_a_seed_hold_the_fewer(data: Path) -> None:
    assert firsts(sequences(data, 9, seed=1))[:6] == firsts(sequences(data, 6, seed=1))


@pytest.mark.parametrize("seed", [None, 1])
def test_there_are_no_more_than_there_are(data: Path, seed: int | None) -> None:
    assert sorted(firsts(sequences(data, 100, seed))) == list(range(NUM_ROWS))


def test_nothing_is_padded(data: Path) -> None:
    for batch, number in zip(sequences(data, 6), range(6), strict=True):
        assert batch["input_ids"].shape == (1, number + 1)
        assert batch["attention_mask"].all()


def test_no_data_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(QuantshipError, match="needs training data"):
        sequences(tmp_path, 4)
