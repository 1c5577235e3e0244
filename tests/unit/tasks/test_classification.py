from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from encoders import save_encoder, sentences, write_sst2

from quantship.artifact import Artifact
from quantship.data import glue
from quantship.data.parts import Part, Reading
from quantship.data.texts import open_reader, prepare_texts
from quantship.errors import QuantshipError
from quantship.job import Job
from quantship.mlp.model import build_model
from quantship.models import load_tokenizer
from quantship.runtimes.base import open_classifier
from quantship.stages import head
from quantship.tasks import classification, scores
from quantship.tasks.base import Context, Subject

if TYPE_CHECKING:
    from numpy.typing import NDArray

pytestmark = pytest.mark.usefixtures("one_thread")
ROWS = sentences(21, seed=0)


def encoder(root: Path, classes: tuple[str, ...]) -> Path:
    out = root / "-".join(classes)
    out.mkdir()
    base = save_encoder(root / f"base of {out.name}", [text for text, _ in ROWS])
    given = {"model": Artifact(base, "model", "", {})}
    head.run(Job(head.Settings(classes=classes, seed=0), given, out, root / "resume"))
    return out


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An encoder with a head for SST-2; not to be written to."""
    return encoder(tmp_path_factory.mktemp("encoder"), ("negative", "positive"))


@pytest.fixture
def source(tmp_path: Path) -> glue.Options:
    path = write_sst2(tmp_path / "dev.tsv", ROWS)
    return glue.Options(adapter="glue", task="sst2", path=path)


class Judge:
    """Finds praise by its words, and is wrong where told to be."""

    name = "torch"

    def __init__(self, directory: Path, positive: int, wrong: frozenset[int] = frozenset()) -> None:
        self._tokenizer = load_tokenizer(directory)
        self._positive, self._wrong = positive, wrong
        self._seen = 0
        self.sizes: list[int] = []

    def classify(self, inputs: Mapping[str, NDArray[Any]]) -> NDArray[np.float32]:
        truth = {text: label for text, label in ROWS}
        logits = np.zeros((len(inputs["input_ids"]), 2), np.float32)
        for row, ids in enumerate(inputs["input_ids"]):
            praise = truth[str(self._tokenizer.decode(ids, skip_special_tokens=True))]
            if self._seen in self._wrong:
                praise = 1 - praise
            logits[row, self._positive if praise else 1 - self._positive] = 1
            self._seen += 1
        self.sizes.append(len(logits))
        return logits


def judged(directory: Path, judge: Judge) -> Subject:
    return Subject(directory, judge, load_tokenizer(directory))  # type: ignore[arg-type]


def ask(**given: Any) -> classification.Options:
    return classification.Options(task="classification", **given)


def test_every_example_is_held_to_its_class(
    context: Callable[..., Context], directory: Path, source: glue.Options
) -> None:
    judge = Judge(directory, positive=1, wrong=frozenset({3, 4, 8}))
    outcome = classification.evaluate(judged(directory, judge), ask(source=source), context())
    assert scores.mean(outcome.metrics[0], outcome.examples) == pytest.approx(18 / 21)
    lost = [index for index, one in enumerate(outcome.examples) if not one.values["accuracy"]]
    assert lost == [3, 4, 8]
    fourth = outcome.examples[3]
    assert (fourth.id, fourth.prompt) == ("dev.tsv:5", ROWS[3][0])
    assert (fourth.expected, fourth.answer) == ("positive", "negative")
    assert judge.sizes == [3] * 7
    # Of 10 positive ones 9 are found, and two of the 11 others are taken for such.
    assert outcome.extra["f1"] == pytest.approx(2 * 9 / (10 + 11))
    expected = (9 * 9 - 2 * 1) / np.sqrt(11 * 10 * 11 * 10)
    assert outcome.extra["matthews"] == pytest.approx(expected)


def test_classes_in_another_order_are_the_same_classes(
    context: Callable[..., Context], source: glue.Options, tmp_path: Path
) -> None:
    turned = encoder(tmp_path, ("POSITIVE", "NEGATIVE"))
    judge = Judge(turned, positive=0, wrong=frozenset({3, 4, 8}))
    outcome = classification.evaluate(judged(turned, judge), ask(source=source), context())
    assert scores.mean(outcome.metrics[0], outcome.examples) == pytest.approx(18 / 21)
    assert outcome.examples[3].expected == "POSITIVE"
    assert outcome.extra["f1"] == pytest.approx(2 * 9 / (10 + 11))


def test_other_classes_are_refused(
    context: Callable[..., Context], source: glue.Options, tmp_path: Path
) -> None:
    other = encoder(tmp_path, ("no", "yes"))
    with pytest.raises(QuantshipError, match="the model tells no, yes"):
        classification.evaluate(
            judged(other, Judge(other, positive=1)), ask(source=source), context()
        )


def test_a_limit_takes_the_first(
    context: Callable[..., Context], directory: Path, source: glue.Options
) -> None:
    subject = judged(directory, Judge(directory, positive=1))
    outcome = classification.evaluate(subject, ask(source=source, limit=5), context())
    assert [one.id for one in outcome.examples] == [f"dev.tsv:{line}" for line in range(2, 7)]


def test_the_recipes_data_gives_the_same_as_its_source(
    context: Callable[..., Context], directory: Path, source: glue.Options, tmp_path: Path
) -> None:
    tokenizer = load_tokenizer(directory)
    reader = open_reader(directory, tokenizer, 64)
    dataset, _ = prepare_texts([Reading(Part(source))], reader, seed=0, shuffle=False)
    dataset.save_to_disk(tmp_path / "eval")
    subject = Subject(directory, open_classifier(directory, threads=1), tokenizer)
    from_source, from_data, few = (
        classification.evaluate(subject, asked, context())
        for asked in (ask(source=source), ask(), ask(limit=4))
    )
    assert len(few.examples) == 4
    assert from_source.extra == from_data.extra
    for one, other in zip(from_source.examples, from_data.examples, strict=True):
        assert (one.values, one.prompt, one.expected, one.answer) == (
            *(other.values, other.prompt, other.expected, other.answer),
        )


def test_samples_have_classes_as_well(context: Callable[..., Context], tmp_path: Path) -> None:
    from datasets import Dataset

    generator = np.random.default_rng(0)
    features = generator.random((7, 4), dtype=np.float32)
    rows = {"features": features.tolist(), "labels": [0, 1, 2, 0, 1, 2, 0]}
    Dataset.from_dict(rows).save_to_disk(str(tmp_path / "eval"))
    build_model((4, 8, 3), seed=0).save_pretrained(tmp_path / "mlp")
    # A model of samples is saved without names for its classes.
    subject = Subject(tmp_path / "mlp", open_classifier(tmp_path / "mlp", threads=1), None)
    outcome = classification.evaluate(subject, ask(), context())
    assert [one.id for one in outcome.examples] == [f"data[{index}]" for index in range(7)]
    assert outcome.examples[0].prompt is None
    assert list(outcome.extra) == ["f1_macro"]
