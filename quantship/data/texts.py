"""Sources of labelled texts become one data set, for models that tell the classes of texts."""

from __future__ import annotations

import json
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from quantship import progress
from quantship.artifact import Facts
from quantship.data import Source, class_names, labelled
from quantship.data.parts import Reading, described
from quantship.data.source import Labelled
from quantship.errors import DataError, QuantshipError
from quantship.runtimes.kinds import class_names as known_classes
from quantship.runtimes.kinds import places

if TYPE_CHECKING:
    import torch
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

SEGMENTS = "token_type_ids"
"""Column that says which of two texts a token is of."""
TOKENIZED_AT_ONCE = 256


@dataclass(frozen=True)
class Reader:
    """How a model reads texts.

    Args:
        tokenizer: The model's.
        max_length: Longest text in tokens; both of a pair together. Longer ones are cut.
        has_segments: Whether the model is told which of two texts a token is of.
        classes: The model's classes, in the order of its logits.
    """

    tokenizer: PreTrainedTokenizerBase
    max_length: int
    has_segments: bool
    classes: tuple[str, ...]

    def rows(self, records: Iterable[Labelled]) -> Iterator[tuple[Labelled, dict[str, Any], bool]]:
        """Each record, its row for ``collate_texts`` but for the label, and whether it was cut."""
        rest = iter(records)
        while some := list(islice(rest, TOKENIZED_AT_ONCE)):
            texts = [one.texts for one in some]
            whole = self._tokenized(texts)
            for index, record in enumerate(some):
                row = {name: whole[name][index] for name in self.columns}
                is_long = len(row["input_ids"]) > self._longest
                if is_long:
                    cut = self._tokenized([record.texts], truncation=True, max_length=self._longest)
                    row = {name: cut[name][0] for name in self.columns}
                yield record, row, is_long

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns of a row, but for the label."""
        return ("input_ids", SEGMENTS) if self.has_segments else ("input_ids",)

    @property
    def _longest(self) -> int:
        return min(self.max_length, self.tokenizer.model_max_length)

    def _tokenized(self, texts: Sequence[tuple[str, ...]], **options: Any) -> Any:
        given: list[Any] = [one if len(one) > 1 else one[0] for one in texts]
        return self.tokenizer(
            given, return_token_type_ids=self.has_segments, verbose=False, **options
        )

    def labels_of(self, source: Source) -> tuple[int, ...]:
        """The model's class for each of a source's.

        Raises:
            QuantshipError: They are not the same classes.
        """
        classes = class_names(source)
        found = places(classes, self.classes)
        if found is None:
            said = f"are {', '.join(classes)}" if classes else "have no classes"
            raise QuantshipError(
                f"the records of {source.adapter} {said}, and the model tells "
                f"{', '.join(self.classes)}; `head: classification` below `model` gives it a head "
                "for the classes of the data"
            )
        return found


def open_reader(model: Path, tokenizer: PreTrainedTokenizerBase, max_length: int) -> Reader:
    """How the model of a directory reads texts.

    Args:
        model: Directory with the ``config.json`` of a model that tells the classes of texts.
        tokenizer: The model's.
        max_length: Longest text in tokens.
    """
    from transformers import AutoConfig

    config: Any = AutoConfig.from_pretrained(model, trust_remote_code=False)
    return Reader(
        tokenizer,
        max_length,
        (getattr(config, "type_vocab_size", None) or 0) > 1,
        known_classes(json.loads((model / "config.json").read_bytes())),
    )


@dataclass
class _Tally:
    """What became of one source's records."""

    cut: int = 0
    lengths: array[int] = field(default_factory=lambda: array("q"))


def prepare_texts(
    readings: Sequence[Reading], reader: Reader, *, seed: int, shuffle: bool
) -> tuple[Dataset, Facts]:
    """Read and tokenize labelled texts into ``input_ids`` and ``labels``, one class a row.

    Args:
        readings: Sources, read one after the other; all hold the model's classes.
        reader: How the model reads them.
        seed: Decides the order where ``shuffle``.
        shuffle: Mix the texts of all sources.

    Returns:
        The data set, with ``token_type_ids`` as well where the model has them; and facts, JSON
        values only: for each of the sources how many ``records`` it had, how many of them were
        ``cut`` for their length, and the digests of its files; ``texts``, ``tokens``,
        ``texts_by_class`` and ``token_lengths`` of the data set.

    Raises:
        DataError: A record is malformed, or there is none.
        QuantshipError: A source's classes are not the model's.
    """
    from datasets import Dataset, Features, List, Value

    names = reader.columns
    columns: dict[str, list[Any]] = {name: [] for name in (*names, "labels")}
    tallies = []
    for reading in readings:
        source = reading.part.source
        labels = reader.labels_of(source)
        tallies.append(tally := _Tally())
        found = progress.track(labelled(source), reading.part.note, source.limit)
        for record, row, was_cut in reader.rows(reading.take(found)):
            tally.cut += was_cut
            tally.lengths.append(len(row["input_ids"]))
            for name in names:
                columns[name].append(np.array(row[name], dtype=np.int32))
            columns["labels"].append(labels[record.label])
    size = len(columns["labels"])
    if not size:
        raise DataError("there is no record", described(readings))
    if shuffle:
        order = np.random.default_rng(seed).permutation(size)
        columns = {name: [column[index] for index in order] for name, column in columns.items()}
    lists = {name: List(Value("int32")) for name in names}
    dataset = Dataset.from_dict(columns, features=Features({**lists, "labels": Value("int64")}))
    counts = np.bincount(columns["labels"], minlength=len(reader.classes))
    return dataset, {
        "sources": [
            {**reading.facts(), "over_length": 0, "cut": tally.cut}
            for reading, tally in zip(readings, tallies, strict=True)
        ],
        "texts": size,
        "tokens": sum(sum(tally.lengths) for tally in tallies),
        "texts_by_class": dict(zip(reader.classes, counts.tolist(), strict=True)),
        "token_lengths": _percentiles(tallies),
    }


def collate_texts(batch: Sequence[dict[str, Any]], pad_token_id: int) -> dict[str, torch.Tensor]:
    """Pad texts on the right to the longest of them.

    Args:
        batch: Rows of a prepared data set.
        pad_token_id: Fills ``input_ids``.

    Returns:
        ``input_ids``, ``attention_mask`` and, where the rows have them, ``token_type_ids``, each
        int64 [batch, longest]; ``labels``, int64 [batch].
    """
    import torch

    longest = max(len(row["input_ids"]) for row in batch)

    def padded(rows: Iterable[list[int]], fill: int) -> torch.Tensor:
        return torch.tensor([[*row, *[fill] * (longest - len(row))] for row in rows])

    made = {
        "input_ids": padded((row["input_ids"] for row in batch), pad_token_id),
        "attention_mask": padded(([1] * len(row["input_ids"]) for row in batch), 0),
    }
    if SEGMENTS in batch[0]:
        made[SEGMENTS] = padded((row[SEGMENTS] for row in batch), 0)
    return {**made, "labels": torch.tensor([row["labels"] for row in batch])}


def _percentiles(tallies: Sequence[_Tally]) -> dict[str, int]:
    lengths = np.concatenate([np.frombuffer(tally.lengths, dtype=np.int64) for tally in tallies])
    points = {"min": 0, "p50": 50, "p90": 90, "p99": 99, "max": 100}
    values = np.percentile(lengths, list(points.values()), method="inverted_cdf")
    return {name: int(value) for name, value in zip(points, values, strict=True)}
