from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from quantship.runtimes.base import Tokens
from quantship.runtimes.ort import OrtRuntime


@pytest.fixture
def runtime(tiny_onnx_dir: Path) -> OrtRuntime:
    return OrtRuntime(tiny_onnx_dir, threads=1)


def tokens(batch: int, length: int) -> Tokens:
    return np.random.default_rng(0).integers(4, 260, (batch, length))


@pytest.mark.parametrize("batch", [1, 3])
def test_shapes_and_types(runtime: OrtRuntime, batch: int) -> None:
    inputs = tokens(batch, 7)
    everywhere = runtime.logits(inputs, np.ones_like(inputs))
    assert everywhere.shape == (batch, 7, 288)
    assert everywhere.dtype == np.float32
    assert runtime.prefill(inputs, 9).shape == (batch, 288)
    assert runtime.decode(inputs[:, 0]).shape == (batch, 288)


def test_the_cache_may_be_filled_to_its_capacity_and_no_further(runtime: OrtRuntime) -> None:
    inputs = tokens(2, 6)
    runtime.prefill(inputs[:, :4], 6)
    runtime.decode(inputs[:, 4])
    last = runtime.decode(inputs[:, 5])
    expected = runtime.logits(inputs, np.ones_like(inputs))[:, -1]
    np.testing.assert_allclose(last, expected, atol=1e-5)
    with pytest.raises(RuntimeError, match="GroupQueryAttention"):
        runtime.decode(inputs[:, 0])


def test_a_prompt_longer_than_the_capacity_is_refused(runtime: OrtRuntime) -> None:
    with pytest.raises(ValueError, match="no room"):
        runtime.prefill(tokens(1, 5), 4)


def test_earlier_logits_are_not_overwritten(runtime: OrtRuntime) -> None:
    inputs = tokens(1, 5)
    first = runtime.prefill(inputs, 12)
    kept = first.copy()
    for token in range(5, 10):
        runtime.decode(np.array([token]))
    assert np.array_equal(first, kept)


def test_asking_for_logits_in_between_does_not_disturb_decoding(runtime: OrtRuntime) -> None:
    inputs = tokens(1, 5)
    runtime.prefill(inputs, 8)
    undisturbed = runtime.decode(np.array([9]))
    runtime.prefill(inputs, 8)
    runtime.logits(tokens(2, 4), np.ones((2, 4), np.int64))
    assert np.array_equal(runtime.decode(np.array([9])), undisturbed)


def test_views_of_arrays_are_read_right(runtime: OrtRuntime) -> None:
    inputs = tokens(4, 10)
    strided = inputs[::2, ::2]
    assert not strided.flags.c_contiguous
    mask = np.ones((2, 5), np.int64)
    assert np.array_equal(
        runtime.logits(strided, mask), runtime.logits(np.ascontiguousarray(strided), mask)
    )
    assert np.array_equal(
        runtime.prefill(strided, 6), runtime.prefill(np.ascontiguousarray(strided), 6)
    )


def test_a_prompt_needs_the_logits_of_its_last_position_alone(runtime: OrtRuntime) -> None:
    inputs = tokens(2, 7)
    feeds = {"input_ids": inputs, "attention_mask": np.ones_like(inputs)}
    feeds |= {name: np.zeros((2, 2, 0, 32), np.float32) for name in runtime._past_names}
    run = runtime._session.run
    everywhere = run(["logits"], feeds)[0]
    for kept in (1, 3):
        some = run(["logits"], {**feeds, "num_logits_to_keep": np.array([kept])})[0]
        np.testing.assert_allclose(some, everywhere[:, -kept:], atol=1e-6)
