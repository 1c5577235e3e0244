"""A preview for a terminal of 100 columns or more."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich import box
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from quantship.previewing.schema import Bin, Preview, Rendered, Side, SourceCounts
from quantship.reporting.terminal import CAUTION, QUIET

LEARNT_OPEN, LEARNT_CLOSE = "⟦", "⟧"
BAR_WIDTH = 40
MASKED = "dim"
_COLUMNS = {
    "records": "records",
    "used": "used",
    "over_length": "over length",
    "all_masked": "nothing to learn",
    "cut": "cut",
    "windows": "windows",
    "other_side": "other side",
    "also_in_train": "also in train",
}


def render(preview: Preview) -> RenderableType:
    """Everything, side by side with what was left out, examples last."""
    return Group(*_parts(preview))


def _parts(preview: Preview) -> Iterator[RenderableType]:
    yield Text(_introduction(preview))
    for side in preview.sides:
        yield Text(f"\n{side.name}", style="bold")
        yield Text(_summary(side))
        yield _sources(side.sources)
        for warning in _warnings(side):
            yield Text(warning, style=CAUTION)
        if side.lengths:
            yield Text("\ntokens   sequences")
            yield _histogram(side.lengths)
        if side.classes is not None:
            yield _classes(side.classes)
    if any(side.examples for side in preview.sides):
        yield _legend(preview)
    for side in preview.sides:
        for example in side.examples:
            yield from _example(side.name, example)


def _introduction(preview: Preview) -> str:
    parts = [f"{preview.recipe}: as {preview.model} reads it"]
    if preview.max_length is not None:
        parts.append(f"max_length {preview.max_length}")
    if preview.packing:
        parts.append("packed to train on")
    if preview.holdout is not None:
        parts.append(f"{preview.holdout:g} of the training records held out")
    if preview.limit is not None:
        parts.append(f"the first {preview.limit:,} records of each source only")
    return ", ".join(parts)


def _summary(side: Side) -> str:
    kind = "sequences" if side.tokens is not None else "samples"
    parts = [f"{side.sequences:,} {kind}"]
    if side.tokens is not None:
        parts.append(f"{side.tokens:,} tokens")
    if side.learnt_tokens is not None and side.tokens:
        share = side.learnt_tokens / (side.tokens + side.unpacked_tokens)
        parts.append(f"{side.learnt_tokens:,} ({share:.0%}) of them learnt")
    if side.token_lengths:
        points = " ".join(f"{name} {value:,}" for name, value in side.token_lengths.items())
        parts.append(f"lengths {points}")
    if side.digest is not None:
        parts.append(f"digest {side.digest[:12]}")
    return ", ".join(parts)


def _sources(sources: Sequence[SourceCounts]) -> Table:
    shown = [
        key
        for key in _COLUMNS
        if key in ("records", "used") or any(getattr(source, key) for source in sources)
    ]
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column("source")
    for key in shown:
        table.add_column(_COLUMNS[key], justify="right")
    table.add_column("digest of records")
    for source in sources:
        held_out = ", held out" if source.held_out else ""
        counts = [getattr(source, key) for key in shown]
        table.add_row(
            Text(f"{source.adapter} {source.name}{held_out}"),
            *("–" if count is None else f"{count:,}" for count in counts),
            source.records_digest[:12],
        )
    return table


def _warnings(side: Side) -> Iterator[str]:
    shared = sum(source.also_in_train or 0 for source in side.sources)
    if shared:
        total = sum(source.records for source in side.sources)
        yield f"{shared:,} of the {total:,} records to evaluate on are trained on as well."


def _histogram(bins: Sequence[Bin]) -> Table:
    most = max(one.sequences for one in bins)
    table = Table.grid(padding=(0, 1))
    table.add_column(justify="right", min_width=11)
    table.add_column()
    table.add_column()
    for one in bins:
        name = f"{one.first:,}+" if one.last is None else f"{one.first:,}–{one.last:,}"
        bar = "█" * max(round(BAR_WIDTH * one.sequences / most), one.sequences > 0)
        note = "" if one.used else " over max_length"
        style = "" if one.used else CAUTION
        table.add_row(name, Text(bar, style), Text(f"{one.sequences:,}{note}", style))
    return table


def _classes(classes: dict[str, int]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column("class")
    table.add_column("records", justify="right")
    for name, count in classes.items():
        table.add_row(Text(name), f"{count:,}")
    return table


def _legend(preview: Preview) -> Text:
    if all(side.learnt_tokens is None for side in preview.sides):
        return Text("\nExamples, as the model reads them", style="bold")
    return Text.assemble(
        ("\nExamples, as the model reads them", "bold"),
        f"; the loss is of what stands between {LEARNT_OPEN} and {LEARNT_CLOSE}, ",
        ("and not of the rest", MASKED),
    )


def _example(name: str, example: Rendered) -> Iterator[RenderableType]:
    label = "" if example.label is None else f", class {example.label}"
    tokens = f"{example.tokens:,} tokens"
    if example.label is None:
        tokens += f", {example.learnt_tokens:,} learnt"
    yield Text(f"\n{name}: {example.origin}: {tokens}{label}", style=QUIET)
    text = Text()
    for run in example.runs:
        if run.learnt and example.label is None:
            text.append(f"{LEARNT_OPEN}{run.text}{LEARNT_CLOSE}")
        else:
            text.append(run.text, style=MASKED if not run.learnt else "")
    text.rstrip()  # line ends that the template ends with
    if example.is_cut:
        text.append(" …", style=QUIET)
    yield Padding(text, (0, 0, 0, 2))
