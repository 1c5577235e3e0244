"""One data set of a preview: read by the code that prepares it, counted, and not kept."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from quantship.data import (
    Source,
    arrow_files,
    class_names,
    hub_dataset,
    labelled,
    local_files,
    prepare,
)
from quantship.data.parts import Reading
from quantship.data.spool import Spool
from quantship.data.tally import Tally, merged
from quantship.data.templating import Encoded
from quantship.previewing.lengths import bins
from quantship.previewing.marking import rendered
from quantship.previewing.schema import Rendered, Side, SourceCounts

if TYPE_CHECKING:
    from quantship.data.prepare import Format
    from quantship.data.texts import Reader


def of_language(
    name: str,
    readings: Sequence[Reading],
    form: Format,
    folder: Path,
    *,
    examples: int,
    packing: bool,
    seed: int | None,
) -> Side:
    """Sequences of tokens to predict.

    Args:
        name: What the side is called.
        readings: Its sources.
        form: How records become sequences.
        folder: For the tokens, four bytes each, until they are counted.
        examples: Records of each source to render.
        packing: As ``data.prepare.write`` takes it.
        seed: As ``data.prepare.write`` takes it.

    Raises:
        DataError: A record is malformed, the template fails, or nothing is left.
    """
    tallies = [Tally() for _ in readings]
    shown: list[Rendered] = []
    with Spool(folder / f"{name}.tokens") as spool:
        for reading, tally in zip(readings, tallies, strict=True):
            left = examples
            for example, pieces in prepare.collect(reading, form, tally):
                first: Encoded | None = None
                for piece in pieces:
                    first = first or piece
                    spool.add(piece.input_ids, piece.labels)
                if left and first is not None:
                    shown.append(
                        rendered(example.origin, first.input_ids, first.labels, form.tokenizer)
                    )
                    left -= 1
        prepare.require_some(spool, readings, tallies, form)
        arranged = prepare.Arranged(spool, form.max_length, packing=packing, seed=seed)
        facts = prepare.facts_of(readings, tallies, arranged, arrow_files.count(arranged))
    return Side(
        name=name,
        sources=sources(readings, facts["sources"]),
        sequences=facts["sequences"],
        tokens=facts["tokens"],
        learnt_tokens=sum(tally.learnt_tokens for tally in tallies),
        unpacked_tokens=facts["unpacked_tokens"],
        lengths=bins(merged(tallies), form.max_length),
        token_lengths=facts["token_lengths"],
        digest=facts["digest"],
        examples=tuple(shown),
    )


def of_texts(
    name: str, readings: Sequence[Reading], reader: Reader, *, examples: int, seed: int | None
) -> Side:
    """Texts whose class is to be told; arguments as those of ``of_language``."""
    from quantship.data.texts import prepare_texts

    made, facts = prepare_texts(readings, reader, seed=seed or 0, shuffle=seed is not None)
    lengths: Counter[int] = Counter(map(len, made["input_ids"]))
    shown: list[Rendered] = []
    for reading in readings:
        source = reading.part.source
        again = Reading(reading.part).take(islice(labelled(source), source.limit))
        for record, row, _ in reader.rows(islice(again, examples)):
            ids, label = row["input_ids"], class_names(source)[record.label]
            shown.append(rendered(record.origin, ids, ids, reader.tokenizer, label))
    return Side(
        name=name,
        sources=sources(readings, facts["sources"]),
        sequences=facts["texts"],
        tokens=facts["tokens"],
        classes=facts["texts_by_class"],
        lengths=bins(lengths, reader.max_length),
        token_lengths=facts["token_lengths"],
        examples=tuple(shown),
    )


def of_samples(name: str, readings: Sequence[Reading], *, seed: int | None) -> Side:
    """Samples whose class is to be told; arguments as those of ``of_language``."""
    from quantship.data.features import prepare_samples

    _, facts = prepare_samples(readings, seed=seed or 0, shuffle=seed is not None)
    return Side(
        name=name,
        sources=sources(readings, facts["sources"]),
        sequences=facts["samples"],
        classes=facts["samples_by_class"],
    )


def _name(source: Source) -> str:
    files, remote = local_files(source), hub_dataset(source)
    if len(files) == 1:
        return files[0].name
    where = remote[0] if remote is not None else getattr(source, "dataset", "")
    return f"{where} {source.split}".strip()


def sources(
    readings: Sequence[Reading], facts: Sequence[Mapping[str, Any]]
) -> tuple[SourceCounts, ...]:
    """The facts of each source as a preview has them."""
    known = SourceCounts.model_fields.keys()
    return tuple(
        SourceCounts.model_validate(
            {"used": one["records"]}
            | {key: value for key, value in one.items() if key in known}
            | {"name": _name(reading.part.source)}
        )
        for reading, one in zip(readings, facts, strict=True)
    )
