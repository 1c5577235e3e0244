from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from datasets import Dataset

from quantship.errors import DataError
from quantship.tasks import divergence, likelihood, perplexity, scores
from quantship.tasks.base import Context, Outcome, Subject

pytestmark = pytest.mark.usefixtures("one_thread")

RUNTIMES = ("torch", "torchao", "onnxruntime", "onnxruntime of torchao")


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "folder" / "test.txt"
    path.parent.mkdir()
    lines = " = A heading = \n \n" + "".join(f" Sentence {n} of the text .\n" for n in range(40))
    path.write_text(lines)
    return path


def options(kind: Any, text: Path | None = None, **given: Any) -> Any:
    if text is not None:
        given["source"] = {"adapter": "wikitext", "path": str(text)}
    name = kind.__name__.rpartition(".")[2]
    return kind.Options.model_validate({"task": name} | given)


def values(outcome: Outcome) -> dict[str, float]:
    return {one.name: scores.mean(one, outcome.examples) for one in outcome.metrics}


def prepared(context: Callable[..., Context], count: int = 7) -> list[dict[str, list[int]]]:
    """Data of the recipe's own, written where a task looks for it."""
    generator = np.random.default_rng(0)
    rows = [generator.integers(4, 260, int(n)).tolist() for n in generator.integers(2, 40, count)]
    made = [{"input_ids": row, "labels": [-100, *row[1:]]} for row in rows]
    Dataset.from_list(made).save_to_disk(str(context().data))
    return made


@pytest.mark.parametrize("name", RUNTIMES)
def test_perplexity_is_that_of_the_likelihood_on_every_runtime(
    name: str, subjects: dict[str, Subject], context: Callable[..., Context]
) -> None:
    from quantship.data.prepare import collate

    rows = prepared(context)
    outcome = perplexity.evaluate(subjects[name], options(perplexity), context())
    whole = likelihood.evaluate(subjects[name].runtime, [collate(rows, 0)])
    assert values(outcome)["perplexity"] == pytest.approx(whole.metrics["perplexity"], rel=1e-3)
    assert outcome.extra["mean_loss"] == pytest.approx(whole.metrics["mean_loss"], rel=1e-3)
    assert [one.weight for one in outcome.examples] == [len(row["input_ids"]) - 1 for row in rows]


def test_losses_a_token_are_spread_as_the_examples_are(
    subjects: dict[str, Subject], context: Callable[..., Context]
) -> None:
    prepared(context, 21)
    outcome = perplexity.evaluate(subjects["torch"], options(perplexity), context())
    losses = sorted(one.values["perplexity"] / one.weight for one in outcome.examples)
    assert outcome.extra["loss_p50"] == pytest.approx(losses[10])
    assert outcome.extra["loss_p95"] == pytest.approx(losses[19])
    assert math.log(values(outcome)["perplexity"]) == pytest.approx(outcome.extra["mean_loss"])


@pytest.mark.parametrize(
    ("exported", "source", "tolerance"),
    [("onnxruntime", "torch", 1e-5), ("onnxruntime of torchao", "torchao", 1e-3)],
)
def test_text_of_the_tasks_own_is_predicted_alike_by_an_export(
    subjects: dict[str, Subject],
    context: Callable[..., Context],
    text: Path,
    exported: str,
    source: str,
    tolerance: float,
) -> None:
    ours, theirs = (
        perplexity.evaluate(subjects[one], options(perplexity, text), context())
        for one in (exported, source)
    )
    assert len(ours.examples) > 3
    assert scores.digest(ours.examples) == scores.digest(theirs.examples)
    assert values(ours)["perplexity"] == pytest.approx(values(theirs)["perplexity"], rel=tolerance)


def test_sequences_are_called_by_the_line_of_their_text_and_their_number_in_it(
    subjects: dict[str, Subject], context: Callable[..., Context], text: Path
) -> None:
    outcome = perplexity.evaluate(subjects["torch"], options(perplexity, text), context())
    names = [one.id for one in outcome.examples]
    assert names == [f"test.txt:1#{number}" for number in range(1, len(names) + 1)]
    chats = options(
        perplexity, source={"adapter": "builtin", "split": "eval", "num_examples": 4}, limit=3
    )
    outcome = perplexity.evaluate(subjects["torch"], chats, context())
    assert len({one.id for one in outcome.examples}) == 3


def test_text_without_anything_to_predict_is_refused(
    subjects: dict[str, Subject], context: Callable[..., Context]
) -> None:
    chats = options(perplexity, source={"adapter": "builtin", "num_examples": 2})
    with pytest.raises(DataError, match="no sequence fits 3 tokens"):
        perplexity.evaluate(subjects["torch"], chats, context(max_length=3))


def test_a_limit_takes_the_first_sequences(
    subjects: dict[str, Subject], context: Callable[..., Context], text: Path
) -> None:
    whole = perplexity.evaluate(subjects["torch"], options(perplexity, text), context())
    few = perplexity.evaluate(subjects["torch"], options(perplexity, text, limit=2), context())
    assert [one.id for one in few.examples] == [one.id for one in whole.examples[:2]]
    assert [one.weight for one in few.examples] == [one.weight for one in whole.examples[:2]]


def test_a_model_is_no_distance_from_itself(
    subjects: dict[str, Subject], context: Callable[..., Context]
) -> None:
    prepared(context)
    subject = subjects["torch"]
    outcome = divergence.evaluate(subject, options(divergence), context(reference=subject))
    assert values(outcome) == {"kl_nats": 0.0, "top1_agreement": 1.0}


@pytest.mark.parametrize("name", RUNTIMES[1:])
def test_divergence_is_the_distance_over_all_tokens(
    name: str, subjects: dict[str, Subject], context: Callable[..., Context]
) -> None:
    from quantship.data.prepare import collate
    from quantship.tasks import agreement

    rows = prepared(context)
    ours, theirs = subjects[name], subjects["torch"]
    outcome = divergence.evaluate(ours, options(divergence), context(reference=theirs))
    whole = agreement.compare(ours.runtime, theirs.runtime, [collate(rows, 0)])
    found = values(outcome)
    assert found["kl_nats"] == pytest.approx(whole["kl_nats"], rel=0.05, abs=1e-8)
    assert found["top1_agreement"] == pytest.approx(whole["top1_agreement"], abs=0.02)
    assert [one.weight for one in outcome.examples] == [len(row["input_ids"]) for row in rows]
    assert options(divergence).needs_reference
