from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from encoders import save_encoder, sentences

from quantship import models
from quantship.job import Job
from quantship.stages import head

if TYPE_CHECKING:
    from transformers import PreTrainedModel

pytestmark = pytest.mark.usefixtures("one_thread")
TWO, THREE = ("negative", "positive"), ("entailment", "neutral", "contradiction")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An encoder without a head; not to be written to."""
    texts = [text for text, _ in sentences(20, seed=0)]
    return save_encoder(tmp_path_factory.mktemp("encoder") / "base", texts)


@pytest.fixture
def give(job: Callable[..., Job]) -> Callable[..., tuple[Path, dict[str, Any]]]:
    """Give a model a head."""

    def give(
        source: Path, classes: tuple[str, ...], name: str = "out", seed: int = 0
    ) -> tuple[Path, dict[str, Any]]:
        given = job(head.Settings(classes=classes, seed=seed), name, model=source)
        return given.out, head.run(given)

    return give


def weights(path: Path) -> dict[str, torch.Tensor]:
    model: PreTrainedModel = models.load_float(path)
    return dict(model.state_dict())


def test_a_new_head_is_drawn_from_the_seed(
    give: Callable[..., tuple[Path, dict[str, Any]]], base: Path
) -> None:
    path, facts = give(base, THREE)
    assert facts == {"classes": list(THREE), "new_head": True}
    config = json.loads((path / "config.json").read_text())
    assert config["architectures"] == ["BertForSequenceClassification"]
    assert list(config["id2label"].values()) == list(THREE)
    assert models.classifies(path)
    assert models.load_tokenizer(path).get_vocab() == models.load_tokenizer(base).get_vocab()
    mine, again = weights(path), weights(give(base, THREE, "again")[0])
    other = weights(give(base, THREE, "other", seed=1)[0])
    assert mine["classifier.weight"].shape == (3, 64)
    assert all(torch.equal(mine[name], again[name]) for name in mine)
    changed = {name for name in mine if not torch.equal(mine[name], other[name])}
    assert changed == {"classifier.weight"}


def test_a_head_for_the_same_classes_stays(
    give: Callable[..., tuple[Path, dict[str, Any]]], base: Path
) -> None:
    first, _ = give(base, ("POSITIVE", "NEGATIVE"), "first")
    second, facts = give(first, TWO, "second", seed=1)
    assert facts == {"classes": ["POSITIVE", "NEGATIVE"], "new_head": False}
    before, after = weights(first), weights(second)
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_a_head_without_names_gets_the_datas(
    give: Callable[..., tuple[Path, dict[str, Any]]], base: Path
) -> None:
    first, _ = give(base, ("LABEL_0", "LABEL_1"), "first")
    second, facts = give(first, TWO, "second", seed=1)
    assert facts == {"classes": list(TWO), "new_head": False}
    head_weights = weights(first)["classifier.weight"], weights(second)["classifier.weight"]
    assert torch.equal(*head_weights)


def test_a_head_for_other_classes_is_replaced(
    give: Callable[..., tuple[Path, dict[str, Any]]], base: Path
) -> None:
    first, _ = give(base, TWO, "first")
    replaced, facts = give(first, ("no", "yes"), "same-number", seed=1)
    assert facts["new_head"]
    drawn, _ = give(base, ("no", "yes"), "drawn", seed=1)
    there, here, fresh = (weights(one)["classifier.weight"] for one in (first, replaced, drawn))
    assert not torch.equal(there, here)
    assert here.std() == pytest.approx(fresh.std(), rel=0.5)
    path, facts = give(first, THREE, "more", seed=1)
    assert facts == {"classes": list(THREE), "new_head": True}
    before, after = weights(first), weights(path)
    assert after["classifier.weight"].shape == (3, 64)
    assert all(
        torch.equal(before[name], after[name]) for name in before if "classifier" not in name
    )
