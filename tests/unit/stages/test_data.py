from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from datasets import load_from_disk

from quantship.job import Job
from quantship.recipe.language import Data
from quantship.stages import data

EVAL = [{"adapter": "builtin", "split": "eval", "num_examples": 10}]
TRAIN = [{"adapter": "builtin", "num_examples": 24}]


@pytest.fixture
def run(job: Callable[..., Job], tiny_model_dir: Path) -> Callable[..., tuple[Path, Any]]:
    """Prepare data; where it is, and the facts."""

    def run(name: str = "out", seed: int = 0, **given: Any) -> tuple[Path, Any]:
        settings = data.Settings(data=Data.model_validate(given), seed=seed, file_digests=())
        done = job(settings, name, model=tiny_model_dir)
        return done.out, data.run(done)

    return run


def test_both_parts_are_written_and_counted(run: Callable[..., tuple[Path, Any]]) -> None:
    out, facts = run(train=TRAIN, eval=EVAL)
    for part, num_examples in (("train", 24), ("eval", 10)):
        dataset = load_from_disk(str(out / part))
        assert len(dataset) == facts[part]["sequences"] == num_examples
        assert dataset.column_names == ["input_ids", "labels"]


def test_what_is_not_asked_for_is_not_there(run: Callable[..., tuple[Path, Any]]) -> None:
    out, facts = run(eval=EVAL)
    assert facts.keys() == {"eval"}
    assert [path.name for path in out.iterdir()] == ["eval"]


def test_only_training_is_packed(run: Callable[..., tuple[Path, Any]]) -> None:
    out, _ = run(train=TRAIN, eval=EVAL, packing=True, max_length=100)
    train, eval_ = (load_from_disk(str(out / part)) for part in ("train", "eval"))
    assert {len(row) for row in train[:-1]["input_ids"]} == {100}
    assert len(eval_) == 10


def test_only_training_is_shuffled(run: Callable[..., tuple[Path, Any]]) -> None:
    outs = [run(str(seed), seed, train=TRAIN, eval=EVAL)[0] for seed in (0, 1)]
    one, other = (load_from_disk(str(out / "train"))["input_ids"] for out in outs)
    assert one != other
    assert sorted(one) == sorted(other)
    one, other = (load_from_disk(str(out / "eval"))["input_ids"] for out in outs)
    assert list(one) == list(other)
