"""Sources become one tokenized data set, and every record left out is counted."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from quantship import progress
from quantship.artifact import Facts, digest_file
from quantship.data import Source, local_files, rows
from quantship.data.features import FEATURES, collate_samples
from quantship.data.source import Example
from quantship.data.templating import IGNORED, Encoded, encode
from quantship.errors import DataError

if TYPE_CHECKING:
    import torch
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

Integers = npt.NDArray[np.int64]


@dataclass
class _Sequences:
    """Ids and labels of many sequences, end to end; eight bytes a token."""

    input_ids: array[int] = field(default_factory=lambda: array("i"))
    labels: array[int] = field(default_factory=lambda: array("i"))
    ends: array[int] = field(default_factory=lambda: array("q", [0]))

    def add(self, encoded: Encoded) -> None:
        self.input_ids.extend(encoded.input_ids)
        self.labels.extend(encoded.labels)
        self.ends.append(len(self.input_ids))


@dataclass
class _Tally:
    """What became of one source's records."""

    records: int = 0
    used: int = 0
    over_length: int = 0
    all_masked: int = 0
    windows: int = 0
    short_windows: int = 0
    lengths: array[int] = field(default_factory=lambda: array("q"))


def prepare(
    sources: Sequence[Source],
    tokenizer: PreTrainedTokenizerBase,
    *,
    max_length: int,
    chat_template: str | None,
    mask_prompt: bool,
    packing: bool,
    seed: int,
    shuffle: bool,
) -> tuple[Dataset, Facts]:
    """Read, template and tokenize sources into columns ``input_ids`` and ``labels``.

    A chat over ``max_length`` is left out and counted; running text is split into windows of
    ``max_length``, the last one shorter. What has no label to predict (all masked, or a single
    token) is left out and counted. Held in memory: eight bytes a token, twice that at the end.

    Args:
        sources: Read one after the other.
        tokenizer: The model's.
        max_length: Longest sequence in tokens.
        chat_template: Jinja template; None: the tokenizer's own.
        mask_prompt: Compute the loss on assistant turns only.
        packing: Join sequences into blocks of exactly ``max_length``; the last one is shorter.
        seed: Decides the order where ``shuffle``.
        shuffle: Mix the sequences of all sources, before packing.

    Returns:
        The data set (int32 lists, labels IGNORED where the loss looks away, not shifted), and
        facts, JSON values only: for each of ``sources`` what became of its records (chats and
        articles) and the digests of its files; ``sequences``, ``tokens``, ``loss_tokens`` (labels
        that some token predicts) and ``unpacked_tokens`` (a rest of a last block without a label
        to predict) of the data set; ``token_lengths``, over chats and windows, those left out for
        their length too.

    Raises:
        DataError: A record is malformed, the template fails, or nothing is left.
    """
    held = _Sequences()
    tallies = []
    for source in sources:
        found = progress.track(rows(source), f"reading {source.adapter}", source.limit)
        encoded = ((row, encode(row, tokenizer, chat_template, mask_prompt)) for row in found)
        tallies.append(_collect(encoded, max_length, held))
    if len(held.ends) == 1:
        raise DataError(_why_nothing(tallies, max_length, mask_prompt), _names(sources))

    input_ids, labels, ends = _ordered(held, seed if shuffle else None)
    unpacked_tokens = 0
    if packing:
        ends, unpacked_tokens = _block_ends(labels, max_length)
        input_ids, labels = input_ids[: ends[-1]], labels[: ends[-1]]
    starts = ends[:-1]
    facts: Facts = {
        "sources": [
            _source_facts(source, tally) for source, tally in zip(sources, tallies, strict=True)
        ],
        "sequences": len(starts),
        "tokens": len(input_ids),
        # A sequence's first label is predicted by no token.
        "loss_tokens": int((labels != IGNORED).sum() - (labels[starts] != IGNORED).sum()),
        "unpacked_tokens": unpacked_tokens,
        "token_lengths": _percentiles(tallies),
    }
    return _dataset(input_ids, labels, ends), facts


def collate(batch: Sequence[dict[str, Any]], pad_token_id: int) -> dict[str, torch.Tensor]:
    """Pad sequences on the right to the longest of them.

    Args:
        batch: Rows of a prepared data set; samples are left to ``collate_samples``.
        pad_token_id: Fills ``input_ids``; labels are filled with IGNORED.

    Returns:
        ``input_ids``, ``labels`` and ``attention_mask``, each int64 [batch, longest].
    """
    import torch

    if FEATURES in batch[0]:
        return collate_samples(batch)
    longest = max(len(row["input_ids"]) for row in batch)

    def padded(rows: Iterable[list[int]], fill: int) -> torch.Tensor:
        return torch.tensor([row + [fill] * (longest - len(row)) for row in rows])

    return {
        "input_ids": padded((row["input_ids"] for row in batch), pad_token_id),
        "labels": padded((row["labels"] for row in batch), IGNORED),
        "attention_mask": padded(([1] * len(row["input_ids"]) for row in batch), 0),
    }


def in_batches(dataset: Dataset, size: int) -> list[dict[str, torch.Tensor]]:
    """A prepared data set in order, collated, so many sequences at a time."""
    starts = range(0, len(dataset), size)
    groups = (range(start, min(start + size, len(dataset))) for start in starts)
    return [collate([dataset[row] for row in rows], pad_token_id=0) for rows in groups]


def _collect(
    examples: Iterable[tuple[Example, Encoded]], max_length: int, held: _Sequences
) -> _Tally:
    tally = _Tally()
    for example, encoded in examples:
        tally.records += 1
        pieces = list(_windows(encoded, max_length)) if example.raw else [encoded]
        tally.lengths.extend(len(piece.input_ids) for piece in pieces)
        if len(pieces[0].input_ids) > max_length:
            tally.over_length += 1
            continue
        kept = [piece for piece in pieces if _predicts(piece.labels)]
        tally.all_masked += len(pieces) - len(kept)
        tally.used += bool(kept)
        if example.raw:
            tally.windows += len(kept)
            tally.short_windows += sum(len(piece.input_ids) < max_length for piece in kept)
        for piece in kept:
            held.add(piece)
    return tally


def _windows(encoded: Encoded, size: int) -> Iterator[Encoded]:
    for start in range(0, len(encoded.input_ids), size):
        window = slice(start, start + size)
        yield Encoded(encoded.input_ids[window], encoded.labels[window])


def _predicts(labels: Sequence[int] | npt.NDArray[np.int32]) -> bool:
    """Whether some token's label is predicted by the token before it."""
    return any(label != IGNORED for label in labels[1:])


def _ordered(
    held: _Sequences, seed: int | None
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32], Integers]:
    input_ids = np.frombuffer(held.input_ids, dtype=np.int32)
    labels = np.frombuffer(held.labels, dtype=np.int32)
    ends = np.frombuffer(held.ends, dtype=np.int64)
    if seed is None:
        return input_ids, labels, ends
    order = np.random.default_rng(seed).permutation(len(ends) - 1)
    lengths = np.diff(ends)[order]
    pieces = [slice(ends[index], ends[index + 1]) for index in order]
    return (
        np.concatenate([input_ids[piece] for piece in pieces]),
        np.concatenate([labels[piece] for piece in pieces]),
        np.concatenate([[0], np.cumsum(lengths)]),
    )


def _block_ends(labels: npt.NDArray[np.int32], size: int) -> tuple[Integers, int]:
    """Where blocks end, and how many tokens the last one left over."""
    ends = np.append(np.arange(0, len(labels), size), len(labels))
    if len(ends) > 2 and not _predicts(labels[ends[-2] :]):
        return ends[:-1], int(ends[-1] - ends[-2])
    return ends, 0


def _dataset(
    input_ids: npt.NDArray[np.int32], labels: npt.NDArray[np.int32], ends: Integers
) -> Dataset:
    from datasets import Dataset, Features, List, Value

    # From arrays in memory: no list of Python integers, and no cache outside the artifact.
    return Dataset.from_dict(
        {
            "input_ids": np.split(input_ids, ends[1:-1]),
            "labels": np.split(labels, ends[1:-1]),
        },
        features=Features(input_ids=List(Value("int32")), labels=List(Value("int32"))),
    )


def _source_facts(source: Source, tally: _Tally) -> Facts:
    return {
        "adapter": source.adapter,
        "records": tally.records,
        "used": tally.used,
        "over_length": tally.over_length,
        "all_masked": tally.all_masked,
        "windows": tally.windows,
        "short_windows": tally.short_windows,
        "digests": [digest_file(path) for path in local_files(source)],
    }


def _percentiles(tallies: list[_Tally]) -> dict[str, int]:
    lengths = np.concatenate([np.frombuffer(t.lengths, dtype=np.int64) for t in tallies])
    points = {"min": 0, "p50": 50, "p90": 90, "p99": 99, "max": 100}
    values = np.percentile(lengths, list(points.values()), method="inverted_cdf")
    return {name: int(value) for name, value in zip(points, values, strict=True)}


def _why_nothing(tallies: list[_Tally], max_length: int, mask_prompt: bool) -> str:
    records = sum(tally.records for tally in tallies)
    over_length = sum(tally.over_length for tally in tallies)
    all_masked = sum(tally.all_masked for tally in tallies)
    return (
        f"nothing to use in {records} records: {over_length} are over max_length {max_length}, "
        f"{all_masked} have no token to predict" + _remedy(over_length, all_masked, mask_prompt)
    )


def _remedy(over_length: int, all_masked: int, mask_prompt: bool) -> str:
    if over_length > all_masked:
        return "\n    Raise data.max_length, or choose other data."
    if all_masked and mask_prompt:
        return (
            "\n    data.mask_prompt leaves assistant turns only, and the chat template writes "
            "nothing of them: give them content, or give another data.chat_template."
        )
    return ""


def _names(sources: Sequence[Source]) -> str:
    return ", ".join(f"{source.adapter} {source.split}" for source in sources) or "no source"
