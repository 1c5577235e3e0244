from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from datasets import Dataset

from quantship import stopping, training
from quantship.artifact import Facts
from quantship.errors import QuantshipError
from quantship.quant.modules import prepare_qat
from quantship.quant.scheme import SCHEMES
from quantship.recipe.language import FinetuneStep, TinyModel
from quantship.tiny import build_model, build_tokenizer
from quantship.training import train

if TYPE_CHECKING:
    from transformers import PreTrainedModel

SMALL = TinyModel(hidden_size=32, intermediate_size=48, num_layers=1, num_heads=2, num_kv_heads=1)
NUM_ROWS = 24


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    """Sequences of different lengths, the first half of each masked."""
    generator = torch.Generator().manual_seed(0)
    rows = [
        torch.randint(4, 100, (6 + index % 5,), generator=generator).tolist()
        for index in range(NUM_ROWS)
    ]
    labels = [[-100] * (len(row) // 2) + row[len(row) // 2 :] for row in rows]
    return Dataset.from_dict({"input_ids": rows, "labels": labels})


def options(**given: Any) -> FinetuneStep:
    usual: dict[str, Any] = {
        "stage": "finetune",
        "max_steps": 6,
        "batch_size": 4,
        "learning_rate": 1e-2,
        "save_steps": 2,
        "logging_steps": 1,
    }
    return FinetuneStep.model_validate(usual | given)


def fresh() -> PreTrainedModel:
    return build_model(SMALL, build_tokenizer(64), seed=0)


def run(
    dataset: Dataset, resume: Path, *, seed: int = 0, **given: Any
) -> tuple[dict[str, torch.Tensor], Facts]:
    """Train a fresh model; its weights and the facts."""
    model = fresh()
    facts = train(model, dataset, options(**given), pad_token_id=0, seed=seed, resume=resume)
    return dict(model.state_dict()), facts


def equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(one[name], other[name]) for name in one)


class Interrupted(Dataset):  # type: ignore[misc]
    """The data set; calls ``act`` when row number ``when`` (counting from one) is read."""

    def __init__(self, rows: Dataset, when: int, act: Callable[[], object]) -> None:
        super().__init__(rows.data)
        self._when, self._act, self._reads = when, act, 0

    def __getitems__(self, keys: list[int]) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = super().__getitems__(keys)
        before, self._reads = self._reads, self._reads + len(keys)
        if before < self._when <= self._reads:
            self._act()
        return rows


def checkpoints(resume: Path) -> list[str]:
    return sorted(path.name for path in resume.glob("checkpoint-*"))


def test_training_learns(dataset: Dataset, tmp_path: Path) -> None:
    weights, facts = run(dataset, tmp_path, max_steps=30)
    losses = [point["loss"] for point in facts["points"]]
    assert losses[-1] < losses[0] - 0.5
    assert not equal(weights, dict(fresh().state_dict()))
    assert facts["num_steps"] == 30
    assert facts["resumed_from"] is None
    assert facts["seconds"] > 0
    assert facts["tokens_per_s"] > 0
    assert facts["precision"] == "float32" or torch.cuda.is_available()


def test_the_seed_decides(dataset: Dataset, tmp_path: Path) -> None:
    first, facts = run(dataset, tmp_path / "1")
    again, facts_again = run(dataset, tmp_path / "2")
    other, _ = run(dataset, tmp_path / "3", seed=1)
    assert equal(first, again)
    assert facts["points"] == facts_again["points"]
    assert not equal(first, other)


def test_epochs_count_unless_steps_are_given(dataset: Dataset, tmp_path: Path) -> None:
    _, facts = run(dataset, tmp_path / "1", max_steps=None, epochs=1.5, batch_size=4)
    assert facts["num_steps"] == 9  # 24 rows in batches of 4, once and a half
    _, facts = run(dataset, tmp_path / "2", max_steps=None, batch_size=4, gradient_accumulation=3)
    assert facts["num_steps"] == 2


def test_accumulated_micro_batches_are_one_batch(dataset: Dataset, tmp_path: Path) -> None:
    """Tokens weigh the same however the batch is cut, though sequences differ in length."""
    whole, _ = run(dataset, tmp_path / "1", batch_size=8)
    cut, _ = run(dataset, tmp_path / "2", batch_size=2, gradient_accumulation=4)
    for name in whole:
        torch.testing.assert_close(whole[name], cut[name], rtol=1e-3, atol=1e-4)


def test_the_learning_rate_rises_then_falls_as_a_cosine(dataset: Dataset, tmp_path: Path) -> None:
    _, facts = run(dataset, tmp_path, max_steps=20, warmup_ratio=0.25)
    rates = [point["learning_rate"] for point in facts["points"]]
    peak = rates.index(max(rates))
    assert max(rates) == pytest.approx(1e-2)
    assert 4 <= peak <= 5
    assert rates[:peak] == sorted(rates[:peak])
    assert rates[peak:] == sorted(rates[peak:], reverse=True)
    assert rates[-1] < 1e-3


def test_points_are_means_over_their_steps_and_none_is_lost(
    dataset: Dataset, tmp_path: Path
) -> None:
    _, each = run(dataset, tmp_path / "1", max_steps=7)
    _, grouped = run(dataset, tmp_path / "2", max_steps=7, logging_steps=3)
    losses = [point["loss"] for point in each["points"]]
    assert [point["step"] for point in each["points"]] == [1, 2, 3, 4, 5, 6, 7]
    assert [point["step"] for point in grouped["points"]] == [3, 6, 7]
    expected = [sum(losses[:3]) / 3, sum(losses[3:6]) / 3, losses[6]]
    assert [point["loss"] for point in grouped["points"]] == pytest.approx(expected)


def test_nothing_is_printed(
    dataset: Dataset, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run(dataset, tmp_path)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_weights_stay_in_float32(precision: str, dataset: Dataset, tmp_path: Path) -> None:
    weights, facts = run(dataset, tmp_path, precision=precision)
    assert facts["precision"] == precision
    assert {tensor.dtype for tensor in weights.values()} == {torch.float32}


def test_codes_shared_by_micro_batches_are_those_of_the_weights_at_hand(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fused AdamW writes to weights without a trace; training must round them anew all the same."""
    given: dict[str, Any] = {"max_steps": 4, "gradient_accumulation": 2, "batch_size": 2}

    def trained(folder: str) -> dict[str, torch.Tensor]:
        model = prepare_qat(fresh(), SCHEMES["w8a8"])
        path = tmp_path / folder
        train(model, dataset, options(**given), pad_token_id=0, seed=0, resume=path)
        return dict(model.state_dict())

    shared = trained("shared")
    monkeypatch.setattr(training, "keep_codes", lambda model: None)
    assert equal(shared, trained("rounded each time"))


def test_gradient_checkpointing_changes_nothing(dataset: Dataset, tmp_path: Path) -> None:
    plain, _ = run(dataset, tmp_path / "1")
    frugal, _ = run(dataset, tmp_path / "2", gradient_checkpointing=True)
    assert equal(plain, frugal)


def test_a_gradient_is_clipped(dataset: Dataset, tmp_path: Path) -> None:
    start = dict(fresh().state_dict())

    def largest_move(folder: str, max_grad_norm: float) -> float:
        given: dict[str, Any] = {"max_steps": 1, "warmup_ratio": 0, "max_grad_norm": max_grad_norm}
        weights, facts = run(dataset, tmp_path / folder, **given)
        assert facts["points"][0]["grad_norm"] > 0.1  # the norm before clipping
        return max(float((weights[name] - start[name]).abs().max()) for name in start)

    assert largest_move("free", 1e9) == pytest.approx(1e-2, rel=0.01)  # Adam's step
    assert largest_move("clipped", 1e-12) < 1e-4  # its epsilon outweighs so small a gradient


def test_a_training_that_diverges_says_so(dataset: Dataset, tmp_path: Path) -> None:
    with pytest.raises(QuantshipError, match=r"is (nan|inf) at step \d+; a smaller learning_rate"):
        run(dataset, tmp_path, learning_rate=1e30, max_steps=20, warmup_ratio=0)


def test_at_most_two_checkpoints_are_kept(dataset: Dataset, tmp_path: Path) -> None:
    run(dataset, tmp_path, max_steps=9)
    assert checkpoints(tmp_path) == ["checkpoint-8", "checkpoint-9"]


def test_an_untimely_end_is_made_good(dataset: Dataset, tmp_path: Path) -> None:
    """Killed after step 5 of 12, with checkpoints of every second step: it goes on from 4."""
    undisturbed, facts = run(dataset, tmp_path / "undisturbed", max_steps=12, logging_steps=5)

    def die() -> None:
        raise RuntimeError("the power is gone")

    with pytest.raises(RuntimeError, match="power"):
        run(Interrupted(dataset, 21, die), tmp_path / "1", max_steps=12, logging_steps=5)
    assert checkpoints(tmp_path / "1") == ["checkpoint-2", "checkpoint-4"]
    resumed, facts_resumed = run(dataset, tmp_path / "1", max_steps=12, logging_steps=5)
    assert facts_resumed["resumed_from"] == 4
    assert equal(undisturbed, resumed)
    assert facts_resumed["points"] == facts["points"]
    assert [point["step"] for point in facts["points"]] == [5, 10, 12]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
def test_a_signal_ends_the_step_saves_and_stops(
    number: signal.Signals, dataset: Dataset, tmp_path: Path
) -> None:
    undisturbed, facts = run(dataset, tmp_path / "undisturbed", save_steps=100)
    before = signal.getsignal(number)
    stop = Interrupted(dataset, 9, lambda: os.kill(os.getpid(), number))  # while step 3 reads
    with pytest.raises(KeyboardInterrupt):
        run(stop, tmp_path / "1", save_steps=100)
    assert signal.getsignal(number) is before
    (left,) = checkpoints(tmp_path / "1")
    step = int(left.removeprefix("checkpoint-"))
    assert 2 <= step <= 3  # the data loader reads a batch ahead
    resumed, facts_resumed = run(dataset, tmp_path / "1", save_steps=100)
    assert facts_resumed["resumed_from"] == step
    assert equal(undisturbed, resumed)
    assert facts_resumed["points"] == facts["points"]


@pytest.fixture
def heeded() -> Iterator[None]:
    """Python's own handler of SIGINT; a shell's background jobs are started with none."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("heeded")
def test_a_second_signal_does_not_wait(dataset: Dataset, tmp_path: Path) -> None:
    def twice() -> None:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(stopping.ECHO_S + 0.1)  # sooner, it would count as the first one's echo
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(10)

    with pytest.raises(KeyboardInterrupt):
        run(Interrupted(dataset, 9, twice), tmp_path, save_steps=100)
    assert checkpoints(tmp_path) == []
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_training_works_outside_the_main_thread(dataset: Dataset, tmp_path: Path) -> None:
    results: list[tuple[dict[str, torch.Tensor], Facts]] = []
    thread = threading.Thread(target=lambda: results.append(run(dataset, tmp_path / "thread")))
    thread.start()
    thread.join()
    ((weights, _),) = results
    assert equal(weights, run(dataset, tmp_path / "main")[0])


@pytest.mark.parametrize("damage", [b"", b'{"global_step": 6, "log_his', None])
def test_a_broken_checkpoint_gives_way_to_the_one_before(
    damage: bytes | None, dataset: Dataset, tmp_path: Path
) -> None:
    undisturbed, _ = run(dataset, tmp_path)
    assert checkpoints(tmp_path) == ["checkpoint-4", "checkpoint-6"]
    state = tmp_path / "checkpoint-6" / "trainer_state.json"
    if damage is None:
        state.unlink()
    else:
        state.write_bytes(damage)
    resumed, facts = run(dataset, tmp_path)
    assert facts["resumed_from"] == 4
    assert equal(undisturbed, resumed)


@pytest.mark.parametrize("max_steps", [6, 4], ids=["epoch's end", "mid-epoch"])
def test_a_finished_training_is_not_repeated(
    max_steps: int, dataset: Dataset, tmp_path: Path
) -> None:
    """Killed after its last step, before the model was written."""
    given: dict[str, Any] = {"max_steps": max_steps, "weight_decay": 0.1}
    weights, facts = run(dataset, tmp_path, **given)
    for _ in range(2):
        again, facts_again = run(dataset, tmp_path, **given)
        assert facts_again["resumed_from"] == max_steps
        assert equal(weights, again)
        assert facts_again["points"] == facts["points"]
        assert facts_again["num_steps"] == max_steps
