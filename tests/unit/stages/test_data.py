from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from datasets import load_from_disk

from quantship.data.digest import digest
from quantship.errors import DataError
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


def test_what_is_held_out_is_evaluated_on_after_what_is_given(
    run: Callable[..., tuple[Path, Any]],
) -> None:
    whole = load_from_disk(str(run("whole", train=TRAIN, eval=EVAL)[0] / "train"))["input_ids"]
    out, facts = run(train=TRAIN, eval=EVAL, holdout=0.3)
    train, eval_ = (load_from_disk(str(out / part))["input_ids"] for part in ("train", "eval"))
    assert 0 < len(eval_) - 10 < 24
    assert sorted([*train, *eval_[10:]]) == sorted(whole)
    [kept], [given, held_out] = (facts[part]["sources"] for part in ("train", "eval"))
    assert kept["records"] == held_out["other_side"] == len(train)
    assert held_out["records"] == kept["other_side"] == len(eval_) - 10
    assert "held_out" not in given
    alone, _ = run("alone", train=TRAIN, holdout=0.3)
    assert list(load_from_disk(str(alone / "eval"))["input_ids"]) == eval_[10:]


def test_the_recipes_seed_decides_what_is_held_out(run: Callable[..., tuple[Path, Any]]) -> None:
    outs = [
        run(str(turn), seed, train=TRAIN, holdout=0.4)[0] for turn, seed in enumerate((0, 0, 1))
    ]
    one, again, other = (list(load_from_disk(str(out / "eval"))["input_ids"]) for out in outs)
    assert one == again != other


def test_records_that_are_trained_on_as_well_are_counted(
    run: Callable[..., tuple[Path, Any]],
) -> None:
    assert run("apart", train=TRAIN, eval=EVAL)[1]["overlap"] == [0]
    shared = {"adapter": "builtin", "num_examples": 7}
    assert run("shared", train=TRAIN, eval=[*EVAL, shared])[1]["overlap"] == [0, 7]
    assert run("split", train=TRAIN, eval=EVAL, holdout=0.3)[1]["overlap"] == [0, 0]


def test_a_share_that_leaves_nothing_says_so(run: Callable[..., tuple[Path, Any]]) -> None:
    few = [{"adapter": "builtin", "num_examples": 2}]
    with pytest.raises(
        DataError, match=r"nothing to use in 0 records.*\n    All 2 are on the other"
    ):
        run(train=few, holdout=1e-9)
    with pytest.raises(
        DataError, match=r"nothing to use in 0 records.*\n    All 2 are on the other"
    ):
        run("other", train=few, holdout=1 - 1e-9)


def test_digests_in_the_facts_are_those_of_the_files(run: Callable[..., tuple[Path, Any]]) -> None:
    out, facts = run(train=TRAIN, eval=EVAL, packing=True, max_length=100)
    for part in ("train", "eval"):
        assert facts[part]["digest"] == digest(out / part)


@pytest.mark.parametrize(
    ("changes", "digests"),
    [
        ({}, ["1b23f346aedb2f36", "04afd1604d21996b"]),
        ({"packing": True, "max_length": 90}, ["aecd9e28b829c76a", "04afd1604d21996b"]),
        ({"mask_prompt": False}, ["65cc433b8f8125f7", "a0f00536723e6b81"]),
    ],
)
def test_tokens_and_their_order_stay_as_they_are(
    run: Callable[..., tuple[Path, Any]], changes: dict[str, Any], digests: list[str]
) -> None:
    """Where this fails, ``REVISION`` goes up: what was made before is not what is made now."""
    _, facts = run(train=TRAIN, eval=EVAL, **changes)
    assert [facts[part]["digest"][:16] for part in ("train", "eval")] == digests


def test_nothing_is_left_beside_the_data(run: Callable[..., tuple[Path, Any]]) -> None:
    out, _ = run(train=TRAIN, eval=EVAL)
    assert sorted(path.name for path in out.iterdir()) == ["eval", "train"]
