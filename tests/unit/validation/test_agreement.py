from __future__ import annotations

import numpy as np
import pytest

from quantship.validation import agreement


def draw(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def test_numbers_against_themselves_are_no_distance_apart() -> None:
    found = agreement.compare("x", [draw(5, 7)], [draw(5, 7)], predicts=True)
    assert (found.max_abs_diff, found.worst_relative, found.kl_ab_nats) == (0, 0, 0)
    assert (found.top1_agreement, found.positions) == (1, 5)


def test_what_is_found_does_not_depend_on_the_batching() -> None:
    ours, theirs = draw(6, 7), draw(6, 7, seed=1)
    whole = agreement.compare("x", [ours], [theirs], predicts=True)
    parts = agreement.compare("x", np.split(ours, 3), np.split(theirs, 3), predicts=True)
    for name, value in whole:
        assert getattr(parts, name) == (value if name == "output" else pytest.approx(value))


def test_numbers_by_hand() -> None:
    ours = np.array([[0.0, np.log(3.0)], [1.0, 1.0]])
    theirs = np.array([[np.log(3.0), 0.0], [1.0, 1.0]])
    found = agreement.compare("x", [ours], [theirs], predicts=True)
    assert found.max_abs_diff == pytest.approx(np.log(3))
    assert found.mean_abs_diff == pytest.approx(np.log(3) / 2)
    assert found.top1_agreement == 0.5
    # Of (1/4, 3/4) and (3/4, 1/4): half of ln 3; the other position adds nothing.
    assert found.kl_ab_nats == found.kl_ba_nats == pytest.approx(np.log(3) / 4)
    assert found.worst_relative == pytest.approx(np.log(3) / ours.std())
    assert found.relative == pytest.approx(np.log(3) / np.sqrt(2) / ours.std())


def test_one_bad_position_is_not_averaged_away() -> None:
    ours = draw(1000, 10)
    theirs = ours.copy()
    theirs[500] = -ours[500]
    found = agreement.compare("x", [ours], [theirs], predicts=False)
    assert found.worst_relative > 1
    assert found.relative < 0.1
    assert found.top1_agreement is None


def test_broken_numbers_are_counted_and_left_out() -> None:
    ours, theirs = draw(4, 3), draw(4, 3)
    ours[1, 2], theirs[3, :2] = np.nan, np.inf
    found = agreement.compare("x", [ours], [theirs], predicts=True)
    assert found.not_finite == (1, 2)
    assert (found.positions, found.max_abs_diff) == (2, 0)


def test_nothing_but_broken_numbers_has_no_prediction() -> None:
    found = agreement.compare("x", [np.full((2, 3), np.nan)], [draw(2, 3)], predicts=True)
    assert (found.positions, found.top1_agreement) == (0, None)


def test_numbers_that_are_all_the_same_have_no_deviation_to_divide_by() -> None:
    found = agreement.compare("x", [np.zeros((2, 3))], [np.full((2, 3), 0.5)], predicts=False)
    assert (found.deviation, found.worst_relative) == (0, 0.5)
