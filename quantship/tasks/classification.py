"""Accuracy of a model that tells classes: of an encoder on texts, of an MLP on samples.

- {task: classification, name: sst2, source: {adapter: glue, task: sst2, path: dev.tsv}}

F1 and Matthews correlation, by which some tasks of GLUE are ranked, come beside it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from quantship.data import Source, labelled
from quantship.tasks.base import Context, Example, Metric, Outcome, Subject, TaskOptions, known_as

if TYPE_CHECKING:
    from quantship.data.texts import Reader

METRICS = (Metric("accuracy", "higher", "share", judges=True),)


class Options(TaskOptions):
    """Texts or samples, and the class that the model's own head takes each for."""

    task: Literal["classification"]
    source: Source | None = None
    """Texts that belong to classes; default: the recipe's ``data.eval``."""


class _Given(NamedTuple):
    """One text or sample, and its row as ``collate`` takes it."""

    id: str
    words: str | None
    row: dict[str, Any]


def evaluate(subject: Subject, options: Options, context: Context) -> Outcome:
    """The most likely class of each text or sample, held to its own."""
    from quantship import progress
    from quantship.data.collating import collate
    from quantship.data.texts import open_reader
    from quantship.runtimes.kinds import class_names
    from quantship.tasks.likelihood import answers

    classes = class_names(json.loads((subject.path / "config.json").read_bytes()))
    order = tuple(range(len(classes)))  # the data's classes among the model's
    if options.source is None:
        given = _prepared(subject, context, options.limit)
    else:
        assert subject.tokenizer is not None
        reader = open_reader(subject.path, subject.tokenizer, context.max_length)
        order = reader.labels_of(options.source)
        given = _read(options.source, reader, order, options.limit)
    found: list[int] = []
    starts = range(0, len(given), context.batch_size)
    for start in progress.track(starts, "classifying", len(starts)):
        rows = [one.row for one in given[start : start + context.batch_size]]
        logits = answers(subject.runtime, collate(rows, pad_token_id=0))
        found += logits[:, 0].argmax(axis=-1).tolist()
    expected = [int(one.row["labels"]) for one in given]
    examples = [
        Example(
            one.id,
            {"accuracy": float(right == answer)},
            prompt=one.words,
            expected=classes[right],
            answer=classes[answer],
        )
        for one, right, answer in zip(given, expected, found, strict=True)
    ]
    numbers = [order.index(one) for one in expected], [order.index(one) for one in found]
    return Outcome(METRICS, examples, _scores(*numbers, len(classes)))


def _scores(expected: Sequence[int], found: Sequence[int], num_classes: int) -> dict[str, float]:
    """What is no mean over examples; of two classes the second is the one to find."""
    from quantship.tasks import class_scores

    if num_classes > 2:
        return {"f1_macro": class_scores.f1_macro(expected, found)}
    return {
        "f1": class_scores.f1(expected, found),
        "matthews": class_scores.matthews(expected, found),
    }


def _read(source: Source, reader: Reader, labels: Sequence[int], limit: int | None) -> list[_Given]:
    return [
        _Given(
            known_as(record.origin),
            "\n".join(record.texts),
            {**row, "labels": labels[record.label]},
        )
        for record, row, _ in reader.rows(islice(labelled(source), limit))
    ]


def _prepared(subject: Subject, context: Context, limit: int | None) -> list[_Given]:
    """The recipe's own data, whose texts are what their tokens say."""
    from datasets import load_from_disk

    dataset = load_from_disk(str(context.data))
    given = []
    for index in range(min(len(dataset), limit or len(dataset))):
        row, words = dataset[index], None
        if subject.tokenizer is not None:
            words = subject.tokenizer.decode(row["input_ids"], skip_special_tokens=True)
        given.append(_Given(f"data[{index}]", str(words) if words else None, row))
    return given
