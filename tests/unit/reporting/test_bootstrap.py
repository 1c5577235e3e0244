from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quantship.reporting import bootstrap
from quantship.reporting.bootstrap import Mean, difference, means, share_recovered

Floats = np.ndarray[Any, np.dtype[np.float64]]


def sequences(size: int, seed: int = 0) -> tuple[Floats, Any]:
    """A model's loss by sequence, which varies far more than two models differ, and lengths."""
    generator = np.random.default_rng(seed)
    num_tokens = generator.integers(20, 200, size)
    return generator.gamma(4.0, 0.5, size) * num_tokens, num_tokens


def four_models(size: int, noise: float = 0.05) -> tuple[dict[str, Floats], Any]:
    """Float, PTQ that lost 0.3 nats, and QAT that won two thirds back, each with noise."""
    base, num_tokens = sequences(size)
    generator = np.random.default_rng(1)
    lost = {"float": 0.0, "ptq": 0.3, "qat": 0.1}
    nll = {
        name: base + (value + generator.normal(0, noise, size)) * num_tokens
        for name, value in lost.items()
    }
    return nll, num_tokens


def test_a_loss_is_weighted_by_tokens() -> None:
    nll = {"a": np.array([10.0, 2.0]), "b": np.array([1.0, 1.0])}
    losses = means(nll, np.array([30, 10]), seed=0, num_resamples=50)
    assert losses["a"].value == pytest.approx(12 / 40)
    assert losses["b"].value == pytest.approx(2 / 40)
    # Both sequences, or one of them twice: there are no other resamples of two.
    found = sorted({round(float(loss), 9) for loss in losses["a"].resampled})
    assert found == pytest.approx([2 / 10, 12 / 40, 10 / 30])


def test_the_same_seed_gives_the_same_interval_and_another_does_not() -> None:
    nll, num_tokens = four_models(100)

    def interval(seed: int) -> Any:
        losses = means(nll, num_tokens, seed=seed)
        return share_recovered(losses["float"], losses["ptq"], losses["qat"])

    assert interval(5) == interval(5)
    assert interval(5) != interval(6)


def test_memory_is_taken_in_chunks_and_they_are_all_resampled(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    nll, num_tokens = four_models(50)
    whole = means(nll, num_tokens, seed=0, num_resamples=101)
    monkeypatch.setattr(bootstrap, "LARGEST_CHUNK", 1000)
    chunked = means(nll, num_tokens, seed=0, num_resamples=101)
    for name, loss in whole.items():
        np.testing.assert_allclose(chunked[name].resampled, loss.resampled, rtol=1e-12)


def test_what_else_is_resampled_changes_no_model_interval() -> None:
    nll, num_tokens = four_models(60)
    both = means(nll, num_tokens, seed=0)
    alone = means({"ptq": nll["ptq"]}, num_tokens, seed=0)
    np.testing.assert_allclose(alone["ptq"].resampled, both["ptq"].resampled, rtol=1e-12)


@settings(max_examples=30, deadline=None)
@given(size=st.integers(30, 300), noise=st.floats(0.01, 0.2), seed=st.integers(0, 2**32))
def test_intervals_contain_what_was_measured(size: int, noise: float, seed: int) -> None:
    losses = means(*four_models(size, noise), seed=seed, num_resamples=2000)
    lost = difference(losses["ptq"], losses["float"])
    assert lost.low < lost.value < lost.high
    share = share_recovered(losses["float"], losses["ptq"], losses["qat"])
    assert share is not None
    assert share.low < share.value < share.high


def test_a_difference_and_its_reverse_mirror_each_other() -> None:
    losses = means(*four_models(80), seed=0)
    there, back = (difference(losses[a], losses[b]) for a, b in (("ptq", "qat"), ("qat", "ptq")))
    assert back.value == -there.value
    # The percentiles are single resamples, one further in at one end than at the other.
    assert (back.low, back.high) == pytest.approx((-there.high, -there.low), abs=1e-4)


def test_pairing_narrows_the_interval_of_models_that_find_the_same_things_hard() -> None:
    nll, num_tokens = four_models(200)
    losses = means(nll, num_tokens, seed=0)
    elsewhere = means(nll, num_tokens, seed=1)
    paired = difference(losses["ptq"], losses["float"])
    unpaired = difference(losses["ptq"], elsewhere["float"])
    assert paired.high - paired.low < 0.2 * (unpaired.high - unpaired.low)


def test_the_interval_of_a_mean_is_that_of_the_normal_distribution() -> None:
    size = 2000
    differences = np.random.default_rng(0).normal(0.05, 0.4, size)
    nll = {"a": np.full(size, 3.0) + differences, "b": np.full(size, 3.0)}
    losses = means(nll, np.ones(size, dtype=np.int64), seed=0)
    found = difference(losses["a"], losses["b"])
    half = 1.959964 * differences.std() / size**0.5
    assert found.value == pytest.approx(differences.mean())
    assert found.low == pytest.approx(found.value - half, abs=0.06 * half)
    assert found.high == pytest.approx(found.value + half, abs=0.06 * half)


def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    held, trials = 0, 300
    for trial in range(trials):
        generator = np.random.default_rng(trial)
        num_tokens = generator.integers(20, 200, 100)
        base = generator.gamma(4.0, 0.5, 100)
        lost = {"float": 0.0, "ptq": 0.3, "qat": 0.1}
        nll = {
            name: (base + loss + generator.normal(0, 0.3, 100)) * num_tokens
            for name, loss in lost.items()
        }
        losses = means(nll, num_tokens, seed=trial, num_resamples=1000)
        share = share_recovered(losses["float"], losses["ptq"], losses["qat"])
        assert share is not None
        held += share.low <= 2 / 3 <= share.high
    assert 0.90 <= held / trials <= 0.985


@pytest.mark.parametrize("share", [-0.5, 0.0, 0.4, 1.0, 1.7])
def test_a_share_that_every_sequence_agrees_on_is_certain(share: float) -> None:
    base, num_tokens = sequences(50)
    lost = np.random.default_rng(2).gamma(2.0, 0.1, 50) * num_tokens
    nll = {"float": base, "ptq": base + lost, "qat": base + (1 - share) * lost}
    losses = means(nll, num_tokens, seed=0)
    found = share_recovered(losses["float"], losses["ptq"], losses["qat"])
    assert found is not None
    assert (found.low, found.value, found.high) == pytest.approx((share,) * 3, abs=1e-9)


@pytest.mark.parametrize("lost", [-0.2, 0.0, 0.005])
def test_there_is_no_share_of_a_loss_that_may_be_nothing(lost: float) -> None:
    base, num_tokens = sequences(100)
    noise = np.random.default_rng(3).normal(0, 0.1, 100)
    noise -= (noise * num_tokens).sum() / num_tokens.sum()
    nll = {
        "float": base,
        "ptq": base + (lost + noise) * num_tokens,
        "qat": base - 0.1 * num_tokens,
    }
    losses = means(nll, num_tokens, seed=0)
    assert difference(losses["ptq"], losses["float"]).low <= 0
    assert share_recovered(losses["float"], losses["ptq"], losses["qat"]) is None


def test_resamples_that_lost_nothing_widen_the_interval() -> None:
    reference = Mean(1.0, np.full(1000, 1.0))
    lost = np.linspace(0.2, 0.3, 1000)
    lost[:20] = -0.01
    ptq = Mean(1.25, 1.0 + lost)
    qat = Mean(1.1, 1.0 + lost - 0.15)
    found = share_recovered(reference, ptq, qat)
    assert found is not None
    without = Mean(ptq.value, ptq.resampled[20:]), Mean(qat.value, qat.resampled[20:])
    tighter = share_recovered(Mean(1.0, reference.resampled[20:]), *without)
    assert tighter is not None
    assert found.high > tighter.high
    assert found.high < 0.15 / 0.2 + 1e-9
