from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F
from transformers import AutoModelForCausalLM

from quantship.data.prepare import collate
from quantship.runtimes.base import Runtime, open_runtime
from quantship.tasks.agreement import compare

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def runtime(tiny_model_dir: Path) -> Runtime:
    return open_runtime(tiny_model_dir)


@pytest.fixture(scope="module")
def other(tiny_model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Runtime:
    """The tiny model, somewhat shaken."""
    path = tmp_path_factory.mktemp("other")
    model: Any = AutoModelForCausalLM.from_pretrained(tiny_model_dir)
    generator = torch.Generator().manual_seed(1)
    for parameter in model.parameters():
        shake = torch.randn(parameter.shape, generator=generator)
        parameter.data.add_(shake * parameter.data.std() * 0.5)
    model.save_pretrained(path)
    return open_runtime(path)


@pytest.fixture(scope="module")
def rows() -> list[dict[str, list[int]]]:
    generator = np.random.default_rng(0)
    made = [generator.integers(4, 260, length).tolist() for length in (3, 30, 12, 1, 21)]
    return [{"input_ids": tokens, "labels": tokens} for tokens in made]


def batches(rows: list[dict[str, list[int]]], size: int, pad: int = 0) -> list[dict[str, Any]]:
    return [collate(rows[start : start + size], pad) for start in range(0, len(rows), size)]


def test_a_model_agrees_with_itself_exactly(runtime: Runtime, rows: Any) -> None:
    assert compare(runtime, runtime, batches(rows, 2)) == {
        "max_abs_logit_diff": 0.0,
        "top1_agreement": 1.0,
        "kl_nats": 0.0,
    }


def all_logits(runtime: Runtime, rows: list[dict[str, list[int]]]) -> torch.Tensor:
    """Logits of every token of every row, each row on its own: (T, V) in float64."""
    sequences = [np.array([row["input_ids"]]) for row in rows]
    parts = [runtime.logits(sequence, np.ones_like(sequence))[0] for sequence in sequences]
    return torch.from_numpy(np.concatenate(parts)).double()


def test_numbers_are_torchs_over_all_tokens(runtime: Runtime, other: Runtime, rows: Any) -> None:
    ours, theirs = all_logits(runtime, rows), all_logits(other, rows)
    agreed = (ours.argmax(dim=-1) == theirs.argmax(dim=-1)).double().mean().item()
    kl = F.kl_div(
        ours.log_softmax(dim=-1), theirs.log_softmax(dim=-1), reduction="batchmean", log_target=True
    )
    found = compare(runtime, other, batches(rows, 1))
    assert found["top1_agreement"] == pytest.approx(agreed)
    assert found["kl_nats"] == pytest.approx(kl.item(), rel=1e-6)
    assert found["max_abs_logit_diff"] == pytest.approx((ours - theirs).abs().max().item())
    assert 0 < found["top1_agreement"] < 1
    assert found["kl_nats"] > 0


def test_the_reference_is_the_first_distribution_of_the_divergence(
    runtime: Runtime, other: Runtime, rows: Any
) -> None:
    forth = compare(runtime, other, batches(rows, 1))
    back = compare(other, runtime, batches(rows, 1))
    assert forth["max_abs_logit_diff"] == back["max_abs_logit_diff"]
    assert forth["top1_agreement"] == back["top1_agreement"]
    assert forth["kl_nats"] != back["kl_nats"]


@pytest.mark.parametrize(("size", "pad"), [(2, 0), (5, 99)])
def test_neither_batching_nor_padding_weighs_in(
    runtime: Runtime, other: Runtime, rows: Any, size: int, pad: int
) -> None:
    alone = compare(runtime, other, batches(rows, 1))
    assert compare(runtime, other, batches(rows[::-1], size, pad)) == pytest.approx(alone, rel=1e-4)
