from __future__ import annotations

import importlib.util

import numpy as np
import pytest
from pydantic import ValidationError

from quantship.data import digits, holds_samples, hub_dataset, local_files, samples
from quantship.data.features import prepare_samples
from quantship.data.parts import Part, Reading
from quantship.data.prepare import collate, in_batches
from quantship.errors import QuantshipError

needs_digits = pytest.mark.skipif(
    importlib.util.find_spec("sklearn") is None,
    reason="scikit-learn is not installed; install quantship[examples]",
)


@needs_digits
def test_the_splits_share_no_image_and_leave_none_out(source):
    from sklearn.datasets import load_digits

    train, test = (list(samples(source("digits", split=split))) for split in ("train", "test"))
    assert len(train) + len(test) == 1797
    assert 0.17 < len(test) / 1797 < 0.23
    labels = [sample.label for sample in (*train, *test)]
    assert sorted(labels) == sorted(load_digits().target)
    assert {sample.label for sample in test} == set(range(10))


@needs_digits
def test_an_image_is_784_numbers_from_0_to_1_that_show_the_smaller_one(source):
    from sklearn.datasets import load_digits

    sample = next(samples(source("digits", limit=1)))
    assert (sample.features.shape, sample.features.dtype) == ((784,), np.float32)
    assert sample.features.min() == 0
    assert 0.9 <= sample.features.max() <= 1
    image = sample.features.reshape(28, 28)
    # The middle of each of the 8 × 8 pixels that the image was enlarged from.
    middles = (np.arange(8) * 28 + 14) // 8
    smaller = image[np.ix_(middles, middles)]
    originals = load_digits().images / 16
    assert any(np.array_equal(smaller, original.astype(np.float32)) for original in originals)


@needs_digits
def test_every_pass_reads_the_same(source):
    one, other = (list(samples(source("digits", limit=20))) for _ in range(2))
    assert all(np.array_equal(a.features, b.features) for a, b in zip(one, other, strict=True))
    assert len(one) == 20


@needs_digits
def test_samples_are_mixed_to_train_on_and_in_order_to_evaluate_on(source):
    given = [source("digits", limit=40)]

    def made(seed, shuffle):
        return prepare_samples([Reading(Part(given[0]))], seed=seed, shuffle=shuffle)

    in_order, facts = made(seed=0, shuffle=False)
    assert in_order["labels"] == [sample.label for sample in samples(given[0])]
    mixed, other, again = (made(seed=s, shuffle=True)[0] for s in (1, 2, 1))
    assert mixed["labels"] == again["labels"] != other["labels"]
    assert sorted(mixed["labels"]) == sorted(in_order["labels"])
    assert facts["samples"] == 40
    assert sum(facts["samples_by_class"].values()) == 40
    [found] = facts["sources"]
    assert (found["adapter"], found["records"], found["over_length"]) == ("digits", 40, 0)


@needs_digits
def test_features_keep_their_labels_and_every_bit_through_the_data_set(source):
    given = source("digits", limit=30)
    dataset, _ = prepare_samples([Reading(Part(given))], seed=3, shuffle=True)
    known = {sample.features.tobytes(): sample.label for sample in samples(given)}
    (batch,) = in_batches(dataset, 30)
    rows = zip(batch["features"].numpy(), batch["labels"].tolist(), strict=True)
    assert [known[features.tobytes()] for features, _ in rows] == batch["labels"].tolist()


def test_a_batch_of_samples_counts_each_as_one_token():
    rows = [{"features": [0.0, 0.5, 1.0], "labels": 2}, {"features": [1.0, 0.0, 0.0], "labels": 0}]
    batch = collate(rows, pad_token_id=0)
    assert batch["features"].tolist() == [[0.0, 0.5, 1.0], [1.0, 0.0, 0.0]]
    assert batch["labels"].tolist() == [2, 0]
    assert batch["attention_mask"].sum() == 2


def test_digits_hold_samples_and_text_does_not(source):
    assert holds_samples(source("digits"))
    assert not holds_samples(source("builtin"))
    assert local_files(source("digits")) == ()
    assert hub_dataset(source("digits")) is None


def test_there_are_two_splits(source):
    with pytest.raises(ValidationError):
        source("digits", split="eval")


def test_without_scikit_learn_the_extra_is_named(source, monkeypatch):
    monkeypatch.setattr(digits, "find_spec", lambda name: None)
    assert "scikit-learn" in (digits.unavailable() or "")
    with pytest.raises(QuantshipError, match=r"install it with quantship\[examples\]"):
        next(samples(source("digits")))
