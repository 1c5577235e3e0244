"""Sources become one tokenized data set on disk, and every record left out is counted."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from quantship import progress
from quantship.artifact import Facts
from quantship.data import Source, arrow_files, rows
from quantship.data.arrow_files import Written
from quantship.data.collating import collate, in_batches
from quantship.data.packing import Packed
from quantship.data.parts import Part, Reading, described
from quantship.data.source import Example
from quantship.data.spool import Row, Spool
from quantship.data.tally import Tally, merged, percentiles
from quantship.data.templating import Encoded, encode, encode_text
from quantship.errors import DataError

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

__all__ = ["Format", "collate", "collect", "in_batches", "prepare", "write"]

LONGEST_CHARACTERS = 1_000_000
"""A chat of more is over length, whatever it says: nobody counts its tokens."""
LONGEST_TOKEN = 256
"""Characters that no token has."""


@dataclass(frozen=True)
class Format:
    """How records become sequences of tokens.

    Args:
        tokenizer: The model's.
        max_length: Longest sequence in tokens.
        chat_template: Jinja template; None: the tokenizer's own.
        mask_prompt: Compute the loss on assistant turns only.
    """

    tokenizer: PreTrainedTokenizerBase
    max_length: int
    chat_template: str | None
    mask_prompt: bool

    def pieces(self, example: Example) -> Iterator[Encoded] | None:
        """The sequences that an example becomes; None where it is too long to be looked at.

        A chat becomes one, whatever its length. Running text becomes windows of ``max_length``,
        the last one shorter.
        """
        if example.raw:
            return _windows(encode_text(example, self.tokenizer), self.max_length)
        characters = sum(len(message["content"]) for message in example.messages)
        if characters > max(LONGEST_CHARACTERS, LONGEST_TOKEN * self.max_length):
            return None
        if len(example.messages) > self.max_length:  # a turn is a token at least
            return None
        return iter([encode(example, self.tokenizer, self.chat_template, self.mask_prompt)])


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
    """What ``write`` writes of whole sources, in memory: for data sets that fit there.

    Args:
        sources: Read one after the other.
        tokenizer: The model's.
        max_length: Longest sequence in tokens.
        chat_template: Jinja template; None: the tokenizer's own.
        mask_prompt: Compute the loss on assistant turns only.
        packing: As in ``write``.
        seed: Decides the order where ``shuffle``.
        shuffle: Mix the sequences of all sources, before packing.
    """
    from datasets import load_from_disk

    form = Format(tokenizer, max_length, chat_template, mask_prompt)
    with TemporaryDirectory() as folder:
        out = Path(folder) / "data"
        readings = [Reading(Part(source)) for source in sources]
        facts = write(out, readings, form, packing=packing, seed=seed if shuffle else None)
        return load_from_disk(str(out), keep_in_memory=True), facts


def write(
    out: Path, readings: Sequence[Reading], form: Format, *, packing: bool, seed: int | None
) -> Facts:
    """Read, template and tokenize sources into columns ``input_ids`` and ``labels`` on disk.

    A chat over ``max_length`` is left out and counted; running text is split into windows. What
    has no label to predict (all masked, or a single token) is left out and counted. Memory holds
    one record at a time and a few bytes a sequence; disk, while this runs, four bytes a token more
    than at the end.

    Args:
        out: Directory to write, which is not there.
        readings: Read one after the other.
        form: How records become sequences of tokens.
        packing: Join sequences into blocks of exactly ``max_length``; the last one is shorter.
        seed: Mix the sequences of all sources by this seed, before packing; None: keep them in
            their order.

    Returns:
        Facts, JSON values only: for each of the sources what became of its records (chats and
        articles) and the digests of its files; ``sequences``, ``tokens``, ``loss_tokens`` (labels
        that some token predicts), ``unpacked_tokens`` (of blocks that were left out as they have
        no label to predict) and ``digest`` of the data set (int32 lists, labels IGNORED where the
        loss looks away, not shifted); ``token_lengths``, over chats and windows, those left out
        for their length too.

    Raises:
        DataError: A record is malformed, the template fails, or nothing is left.
    """
    with Spool(out.with_name(f".{out.name}.tokens")) as spool:
        tallies = [Tally() for _ in readings]
        for reading, tally in zip(readings, tallies, strict=True):
            for _, pieces in collect(reading, form, tally):
                for piece in pieces:
                    spool.add(piece.input_ids, piece.labels)
        arranged = Arranged(spool, form.max_length, packing=packing, seed=seed)
        require_some(spool, readings, tallies, form)
        return facts_of(readings, tallies, arranged, arrow_files.write(arranged, out))


class Arranged:
    """Sequences in the order and form in which a model reads them.

    Args:
        spool: In the order they came.
        max_length: Tokens of a block.
        packing: Join sequences into blocks.
        seed: Mix them by this seed, before packing; None: keep their order.
    """

    def __init__(self, spool: Spool, max_length: int, *, packing: bool, seed: int | None) -> None:
        ordered = progress.track(spool.rows(seed), "arranging", len(spool))
        self._rows = Packed(ordered, max_length) if packing else ordered

    def __iter__(self) -> Iterator[Row]:
        """Yield them, once."""
        return iter(self._rows)

    @property
    def unpacked_tokens(self) -> int:
        """Tokens of blocks that were left out so far."""
        return self._rows.left_out if isinstance(self._rows, Packed) else 0


def facts_of(
    readings: Sequence[Reading], tallies: Sequence[Tally], arranged: Arranged, written: Written
) -> Facts:
    """What ``write`` returns, once all is read and written."""
    return {
        "sources": [
            reading.facts() | tally.facts()
            for reading, tally in zip(readings, tallies, strict=True)
        ],
        "sequences": written.sequences,
        "tokens": written.tokens,
        "loss_tokens": written.loss_tokens,
        "unpacked_tokens": arranged.unpacked_tokens,
        "token_lengths": percentiles(merged(tallies)),
        "digest": written.digest,
    }


def collect(
    reading: Reading, form: Format, tally: Tally
) -> Iterator[tuple[Example, Iterator[Encoded]]]:
    """Yield the records of a source with the sequences that are used of each, counting.

    A record's sequences are to be taken before the next record; some have none.

    Args:
        reading: What to read.
        form: How records become sequences of tokens.
        tally: Where they are counted.
    """
    source = reading.part.source
    found = progress.track(rows(source), reading.part.note, source.limit)
    for example in reading.take(found):
        pieces = form.pieces(example)
        if pieces is None:
            tally.over_length += 1
            tally.untokenized += 1
            yield example, iter(())
        else:
            yield example, _used(example, pieces, form.max_length, tally)


def _used(
    example: Example, pieces: Iterable[Encoded], max_length: int, tally: Tally
) -> Iterator[Encoded]:
    is_used = False
    for piece in pieces:
        length = len(piece.input_ids)
        tally.lengths[length] += 1
        if length > max_length:
            tally.over_length += 1
        elif not piece.predicts:
            tally.all_masked += 1
        else:
            tally.used += not is_used
            is_used = True
            tally.windows += example.raw
            tally.short_windows += example.raw and length < max_length
            tally.tokens += length
            tally.learnt_tokens += piece.num_learnt
            yield piece


def _windows(pieces: Iterable[Encoded], size: int) -> Iterator[Encoded]:
    """Windows of running text, none of whose labels is masked."""
    held: list[int] = []
    for piece in pieces:
        held += piece.input_ids
        whole = len(held) // size * size
        for start in range(0, whole, size):
            yield _unmasked(held[start : start + size])
        del held[:whole]
    if held:
        yield _unmasked(held)


def _unmasked(input_ids: list[int]) -> Encoded:
    return Encoded(input_ids, input_ids)


def require_some(
    spool: Spool, readings: Sequence[Reading], tallies: Sequence[Tally], form: Format
) -> None:
    """Make sure that something is left.

    Raises:
        DataError: Nothing is; says what became of it.
    """
    if not len(spool):
        raise DataError(_why_nothing(readings, tallies, form), described(readings))


def _why_nothing(readings: Sequence[Reading], tallies: Sequence[Tally], form: Format) -> str:
    records = sum(reading.records for reading in readings)
    over_length = sum(tally.over_length for tally in tallies)
    all_masked = sum(tally.all_masked for tally in tallies)
    return (
        f"nothing to use in {records} records: {over_length} are over max_length "
        f"{form.max_length}, {all_masked} have no token to predict"
        + _remedy(readings, over_length, all_masked, form.mask_prompt)
    )


def _remedy(
    readings: Sequence[Reading], over_length: int, all_masked: int, mask_prompt: bool
) -> str:
    if over_length > all_masked:
        return "\n    Raise data.max_length, or choose other data."
    if all_masked and mask_prompt:
        return (
            "\n    data.mask_prompt leaves assistant turns only, and the chat template writes "
            "nothing of them: give them content, or give another data.chat_template."
        )
    others = sum(reading.others for reading in readings)
    if others:
        return (
            f"\n    All {others} are on the other side of data.holdout: change its share, or "
            "give more data."
        )
    return ""
