from __future__ import annotations

import tracemalloc
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from quantship.tasks.distributions import distances, nll_nats


def draw(*shape: int, seed: int = 0, scale: float = 3.0) -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32) * np.float32(scale)


@settings(deadline=None)
@given(
    seed=st.integers(0, 999),
    size=st.sampled_from([1, 2, 77, 50_000, 300_000]),
    scale=st.sampled_from([0.01, 1.0, 30.0, 3000.0]),
    count=st.integers(0, 12),
)
def test_losses_are_torchs_in_double_precision(
    seed: int, size: int, scale: float, count: int
) -> None:
    logits = draw(2, 3, size, seed=seed, scale=scale)
    generator = np.random.default_rng(seed)
    places, targets = generator.integers(0, 6, count), generator.integers(0, size, count)
    before = logits.copy()
    nll, best = nll_nats(logits, places, targets)
    expected = -torch.log_softmax(torch.from_numpy(logits.reshape(6, size)).double(), dim=-1)
    np.testing.assert_allclose(nll, expected.numpy()[places, targets], rtol=1e-6, atol=1e-6)
    assert best.tolist() == logits.reshape(6, size).argmax(axis=-1)[places].tolist()
    assert logits.tobytes() == before.tobytes()


@settings(deadline=None)
@given(
    seed=st.integers(0, 999),
    size=st.sampled_from([1, 5, 300]),
    shake=st.sampled_from([0.0, 1e-4, 1.0, 9.0]),
)
def test_distances_are_torchs_in_double_precision(seed: int, size: int, shake: float) -> None:
    theirs = draw(2, 4, size, seed=seed)
    ours = theirs + np.float32(shake) * draw(2, 4, size, seed=seed + 1)
    kl, agreed, largest = distances(ours, theirs, np.array([0, 3, 7]))
    q, p = (torch.from_numpy(one.reshape(8, size)[[0, 3, 7]]).double() for one in (ours, theirs))
    expected = torch.nn.functional.kl_div(
        q.log_softmax(-1), p.log_softmax(-1), reduction="none", log_target=True
    ).sum(-1)
    np.testing.assert_allclose(kl, expected.numpy(), rtol=1e-9, atol=1e-13)
    assert agreed.tolist() == (q.argmax(-1) == p.argmax(-1)).tolist()
    assert largest == pytest.approx((q - p).abs().max().item(), rel=1e-6)


def test_a_distribution_is_no_distance_from_itself() -> None:
    logits = draw(1, 9, 1000)
    kl, agreed, largest = distances(logits, logits.copy(), np.arange(9))
    assert (kl.tolist(), agreed.all(), largest) == ([0.0] * 9, True, 0.0)


@pytest.mark.parametrize("broken", [np.nan, np.inf])
@pytest.mark.filterwarnings("ignore:invalid value")
def test_broken_logits_give_a_broken_loss(broken: float) -> None:
    logits = draw(1, 1, 10)
    logits[0, 0, 4] = broken
    assert not np.isfinite(nll_nats(logits, np.array([0]), np.array([2]))[0]).any()


def test_memory_does_not_grow_with_the_logits() -> None:
    logits = draw(2, 256, 20_000)
    other = logits[::-1].copy()
    places, targets = np.arange(512), np.zeros(512, np.int64)
    for run in (
        lambda: nll_nats(logits, places, targets),
        lambda: distances(logits, other, places),
    ):
        tracemalloc.start()
        run()
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < logits.nbytes / 2
