"""The token sequences that a task predicts: of its own source, or of the recipe's data."""

from __future__ import annotations

from typing import TYPE_CHECKING

from quantship.data import Source
from quantship.tasks.base import Context, Subject, known_as

if TYPE_CHECKING:
    from collections.abc import Iterator

    from datasets import Dataset

    from quantship.data.templating import Encoded


def load(
    subject: Subject, source: Source | None, context: Context, limit: int | None
) -> tuple[Dataset, list[str]]:
    """Tokenized sequences as ``data.prepare`` makes them, and what each of them is called.

    Args:
        subject: Whose tokenizer is used.
        source: What to read, no further than the limit; None: the recipe's prepared data.
        context: What the recipe says of templates and lengths.
        limit: Sequences at most; None: all.

    Returns:
        The sequences, and where each comes from: ``test.txt:7#2`` is the second window of the text
        at line 7; ``data[3]`` is in the recipe's own evaluation data.

    Raises:
        DataError: A record is malformed, or there is nothing to predict.
    """
    from itertools import islice

    from datasets import Dataset, load_from_disk

    from quantship.errors import DataError

    if source is None:
        dataset = load_from_disk(str(context.data))
        dataset = dataset.select(range(min(len(dataset), limit or len(dataset))))
        return dataset, [f"data[{index}]" for index in range(len(dataset))]
    found = list(islice(_read(subject, source, context), limit))
    if not found:
        message = f"nothing to predict: no sequence fits {context.max_length} tokens (max_length)"
        raise DataError(message, source.adapter)
    columns = {
        "input_ids": [encoded.input_ids for _, encoded in found],
        "labels": [encoded.labels for _, encoded in found],
    }
    return Dataset.from_dict(columns), [name for name, _ in found]


def _read(subject: Subject, source: Source, context: Context) -> Iterator[tuple[str, Encoded]]:
    from quantship.data.parts import Part, Reading
    from quantship.data.prepare import Format, collect
    from quantship.data.tally import Tally

    assert subject.tokenizer is not None
    form = Format(subject.tokenizer, context.max_length, context.chat_template, mask_prompt=True)
    for example, pieces in collect(Reading(Part(source)), form, Tally()):
        name = known_as(example.origin)
        for number, encoded in enumerate(pieces, start=1):
            yield f"{name}#{number}" if example.raw else name, encoded
