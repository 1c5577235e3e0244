from __future__ import annotations

import math
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from torch.nn import functional as F
from transformers import AutoModelForCausalLM

from quantship.data.prepare import collate
from quantship.data.templating import IGNORED as DATA_IGNORED
from quantship.errors import QuantshipError
from quantship.runtimes.base import Runtime, open_runtime
from quantship.tasks.likelihood import (
    IGNORED,
    Sequences,
    evaluate,
    log_softmax,
    read_sequences,
    write_sequences,
)

pytestmark = pytest.mark.usefixtures("one_thread")

Row = dict[str, list[int]]


@pytest.fixture(scope="module")
def runtime(tiny_model_dir: Path) -> Runtime:
    return open_runtime(tiny_model_dir)


@pytest.fixture(scope="module")
def rows() -> list[Row]:
    """Sequences of many lengths, some of whose labels do not count."""
    generator = np.random.default_rng(0)
    made = []
    for length in (2, 3, 40, 17, 8, 9, 25):
        tokens = generator.integers(4, 260, length)
        ignored = generator.random(length) < 0.4
        ignored[-1] = False
        labels = np.where(ignored, IGNORED, tokens)
        made.append({"input_ids": tokens.tolist(), "labels": labels.tolist()})
    return made


def batches(rows: list[Row], size: int, pad_token_id: int = 0) -> list[dict[str, Any]]:
    return [
        collate(rows[start : start + size], pad_token_id) for start in range(0, len(rows), size)
    ]


def test_labels_that_do_not_count_are_those_of_the_data() -> None:
    assert IGNORED == DATA_IGNORED == torch.nn.CrossEntropyLoss().ignore_index


def test_metrics_are_torchs_cross_entropy_over_all_tokens(
    runtime: Runtime, rows: list[Row], tiny_model_dir: Path
) -> None:
    model: Any = AutoModelForCausalLM.from_pretrained(tiny_model_dir).eval()
    total, hits, count = 0.0, 0, 0
    for row in rows:
        with torch.inference_mode():
            logits = model(input_ids=torch.tensor([row["input_ids"]])).logits[0, :-1]
        targets = torch.tensor(row["labels"][1:])
        total += F.cross_entropy(logits.double(), targets, reduction="sum").item()
        hits += int((logits.argmax(dim=-1) == targets).sum())
        count += int((targets != IGNORED).sum())
    found = evaluate(runtime, batches(rows, 3)).metrics
    assert found == {
        "mean_loss": pytest.approx(total / count, rel=1e-6),
        "perplexity": pytest.approx(math.exp(total / count), rel=1e-5),
        "token_accuracy": hits / count,
        "num_tokens": count,
    }


def test_every_sequence_has_the_sum_it_has_alone(runtime: Runtime, rows: list[Row]) -> None:
    silent = {"input_ids": [5, 6, 7], "labels": [5, IGNORED, IGNORED]}
    rows = [*rows[:3], silent, *rows[3:]]
    together = evaluate(runtime, batches(rows, 3))
    assert together.sequences.num_tokens[3] == 0
    for place, row in enumerate(rows):
        if row is silent:
            continue
        alone = evaluate(runtime, batches([row], 1)).metrics
        assert together.sequences.num_tokens[place] == alone["num_tokens"]
        nll_nats = alone["mean_loss"] * alone["num_tokens"]
        assert together.sequences.nll_nats[place] == pytest.approx(nll_nats, rel=1e-5)
    total = together.sequences.nll_nats.sum() / together.sequences.num_tokens.sum()
    assert total == together.metrics["mean_loss"]


@given(
    st.lists(st.tuples(st.floats(0, 1e9), st.integers(0, 2**40)), max_size=20),
)
def test_sums_come_back_from_disk_to_the_bit(sums: list[tuple[float, int]]) -> None:
    nll_nats = np.array([nll for nll, _ in sums], dtype=np.float64)
    num_tokens = np.array([num for _, num in sums], dtype=np.int64)
    with tempfile.TemporaryDirectory() as folder:
        write_sequences(Sequences(nll_nats, num_tokens), Path(folder))
        back = read_sequences(Path(folder))
    assert back.nll_nats.tobytes() == nll_nats.tobytes()
    assert back.num_tokens.tobytes() == num_tokens.tobytes()


@pytest.mark.parametrize("size", [1, 2, 7])
@pytest.mark.parametrize("pad_token_id", [0, 77])
def test_neither_batching_nor_padding_weighs_in(
    runtime: Runtime, rows: list[Row], size: int, pad_token_id: int
) -> None:
    whole = evaluate(runtime, batches(rows, 3)).metrics
    other = evaluate(runtime, batches(rows[::-1], size, pad_token_id)).metrics
    assert other == pytest.approx(whole, rel=1e-6)


def test_a_first_token_has_nothing_to_be_predicted_from(runtime: Runtime) -> None:
    row = {"input_ids": [9, 10, 11], "labels": [9, IGNORED, 11]}
    assert evaluate(runtime, [collate([row], 0)]).metrics["num_tokens"] == 1


def test_a_model_that_knows_its_tokens_is_accurate(runtime: Runtime) -> None:
    tokens = [20]
    for _ in range(6):
        inputs = np.array([tokens])
        tokens.append(int(runtime.logits(inputs, np.ones_like(inputs))[0, -1].argmax()))
    found = evaluate(runtime, [collate([{"input_ids": tokens, "labels": tokens}], 0)]).metrics
    assert found["token_accuracy"] == 1.0
    assert found["perplexity"] < 288


@settings(deadline=None)
@given(
    logits=arrays.arrays(
        np.float32,
        st.tuples(st.integers(1, 4), st.integers(1, 9)),
        elements=st.floats(-1e4, 1e4, width=32),
    )
)
def test_log_softmax_is_torchs_in_double_precision(logits: np.ndarray[Any, Any]) -> None:
    expected = torch.log_softmax(torch.from_numpy(logits).double(), dim=-1).numpy()
    np.testing.assert_allclose(log_softmax(logits), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("scale", [float("nan"), 1e5])
def test_a_model_whose_numbers_are_broken_is_refused(
    rows: list[Row], runtime: Runtime, scale: float
) -> None:
    class Broken:
        name = runtime.name
        prefill, decode = runtime.prefill, runtime.decode

        def logits(self, input_ids: Any, attention_mask: Any) -> Any:
            return runtime.logits(input_ids, attention_mask) * np.float32(scale)

    with pytest.raises(QuantshipError, match="mean loss"):
        evaluate(Broken(), batches(rows, 4))
