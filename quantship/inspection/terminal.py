"""An inspection for a terminal of 100 columns or fewer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from rich import box
from rich.console import Group, RenderableType
from rich.markup import escape
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from quantship.inspection.grouping import Row, float_rows, port_rows, quantized_rows
from quantship.inspection.report import Hazard, Inspection
from quantship.reporting.formatting import MB, size

WIDTH = 100
QUIET, TITLE = "dim", "bold"
SEVERITIES = {
    "wrong": "WRONG",
    "fails": "FAILS",
    "slow": "SLOW",
    "size": "LARGE",
    "note": "NOTE",
}
STYLES = {"wrong": "bold white on red", "fails": "bold white on red", "slow": "yellow"}
LONGEST_VALUE = 200
NAMED_LAYERS = 3


def render(found: Inspection, *, every: bool = False) -> RenderableType:
    """Everything found, in sections.

    Args:
        found: What to show.
        every: One row a tensor, in place of one a group of layers.
    """
    return Group(*_sections(found, every))


def _sections(found: Inspection, every: bool) -> Iterator[RenderableType]:
    yield Text(found.path, TITLE)
    yield from _summary(found)
    if found.onnx is not None:
        ports = [*port_rows(found.onnx.inputs, every=every)]
        yield _heading("Inputs")
        yield _plain(ports)
        yield _heading("Outputs")
        yield _plain(port_rows(found.onnx.outputs, every=every))
    if found.quantized:
        rows = quantized_rows(found.quantized, every=every)
        yield _heading("Quantized")
        details = list(dict.fromkeys(row.detail for row in rows))
        signs = {detail: sign(place) for place, detail in enumerate(details)}
        yield _weights(rows, found.sizes.weight_bytes, signs)
        yield _plain([(one, detail) for detail, one in signs.items()])
    if found.floats:
        yield _heading("In float")
        yield _weights(float_rows(found.floats, every=every), found.sizes.weight_bytes)
    if found.onnx is not None:
        yield _heading("Operators")
        yield _operators(found)
    if found.quantship is not None or found.metadata:
        yield _heading("Metadata")
        yield _plain(list(_metadata(found)))
    yield _heading("This machine")
    yield Padding(_machine(found), (0, 0, 0, 2))
    yield _heading("Warnings" if found.hazards else "Warnings: none")
    for hazard in found.hazards:
        yield Padding(_hazard(hazard), (0, 0, 0, 2))


def _summary(found: Inspection) -> Iterator[Text]:
    sizes = found.sizes
    if found.onnx is not None:
        versions = ", ".join(
            f"{domain or 'opset'} {version}" for domain, version in found.onnx.opsets.items()
        )
        yield Text(
            f"ONNX, {versions}, IR version {found.onnx.ir_version}, by {found.onnx.producer}"
        )
    if found.checkpoint is not None:
        facts = found.checkpoint
        kind = facts.architecture or facts.model_type or "tensors without a configuration"
        count = f" in {len(facts.files)} files" if len(facts.files) > 1 else ""
        yield Text(f"safetensors{count}, {kind}, quantization {facts.quantization}")
    per = "" if sizes.bits_per_parameter is None else f", {sizes.bits_per_parameter:.2f} bits each"
    yield Text(
        f"{_count(sizes.num_parameters)} parameters, {_count(sizes.num_quantized)} of them "
        f"quantized{per}"
    )
    directory = (
        "" if sizes.directory_bytes is None else f", directory {amount(sizes.directory_bytes)}"
    )
    yield Text(
        f"weights {amount(sizes.weight_bytes)}: quantized {amount(sizes.quantized_bytes)}, float "
        f"{amount(sizes.float_bytes)}, tables and constants {amount(sizes.other_bytes)}"
    )
    yield Text(f"model files {amount(sizes.file_bytes)}{directory}")


def sign(place: int) -> str:
    """Letters that stand for a format: ``a`` to ``z``, then ``aa``."""
    head = sign(place // 26 - 1) if place >= 26 else ""
    return head + "abcdefghijklmnopqrstuvwxyz"[place % 26]


def _weights(
    rows: Sequence[Row], weight_bytes: int, signs: Mapping[str, str] | None = None
) -> Table:
    """A table of weights; details are named by their signs, or stand below each name."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_footer=True)
    table.add_column("Layers", "Total", overflow="fold", ratio=1)
    totals = _numbers(
        sum(row.count for row in rows),
        sum(row.num_parameters for row in rows),
        sum(row.size_bytes for row in rows),
        weight_bytes,
    )
    if signs:
        table.add_column("Format", justify="center")
    titles = ("Tensors", "Parameters", "Size", "%", "Bits")
    for title, total in zip(titles, totals, strict=True):
        table.add_column(title, total, justify="right", no_wrap=True)
    for row in rows:
        name = Text(row.name)
        if row.tensor is not None:
            name.append(f"\n{row.tensor}", style=QUIET)
        cells = _numbers(row.count, row.num_parameters, row.size_bytes, weight_bytes)
        if signs:
            table.add_row(name, signs[row.detail], *cells)
        else:
            table.add_row(name.append(f"\n{row.detail}", style=QUIET), *cells)
    return table


def _numbers(count: int, num: int, size_bytes: int, weight_bytes: int) -> tuple[str, ...]:
    share = 100 * size_bytes / max(weight_bytes, 1)
    return (
        f"{count}",
        f"{num:,}",
        amount(size_bytes),
        f"{share:.1f}",
        f"{8 * size_bytes / max(num, 1):.2f}",
    )


def _operators(found: Inspection) -> RenderableType:
    assert found.onnx is not None
    fusion = found.fusion
    changes = {(one.domain, one.operator): one for one in (fusion.changed if fusion else ())}
    done = fusion is not None and fusion.status == "done"
    before = {(one.domain, one.operator): one.count for one in found.onnx.operators}
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 2, 0, 0), pad_edge=False, show_footer=True)
    after = {key: changes[key].after if key in changes else count for key, count in before.items()}
    after |= {key: one.after for key, one in changes.items()}
    table.add_column("Operator", "Total")
    table.add_column("Domain")
    table.add_column("In the file", str(sum(before.values())), justify="right")
    if done:
        table.add_column("Run here as", str(sum(after.values())), justify="right")
    for key in dict.fromkeys([*before, *after]):
        cells = [str(before.get(key, 0))]
        if done:
            changed = key in changes
            cells.append(f"[bold]{after[key]}[/bold]" if changed else str(after[key]))
        table.add_row(escape(key[1]), escape(key[0] or "ai.onnx"), *cells)
    if fusion is None or done:
        return table
    return Group(table, Text(f"  What ONNX Runtime fuses here: {fusion.status}, {fusion.reason}"))


def _metadata(found: Inspection) -> Iterator[tuple[str, ...]]:
    own = found.quantship
    if own is not None:
        yield "scheme", own.scheme or "float"
        yield "lowering", f"{own.lowering}, for {own.target or 'a target that it does not name'}"
        yield "arithmetic", own.arithmetic
        if own.algorithm:
            yield "algorithm", own.algorithm
        if own.source_sha256:
            yield "source", f"SHA-256 {own.source_sha256}"
        if own.version:
            yield "quantship", own.version
        yield "layers noted", str(own.num_layers)
        for key, value in own.more.items():
            yield key, _shortened(value)
    for key, value in found.metadata.items():
        yield key, _shortened(value)


def _machine(found: Inspection) -> Text:
    machine = found.machine
    sets = ", ".join(machine.instruction_sets) or "none that integers are fast by"
    exact = "exact" if machine.has_vnni else "saturating"
    runtime = f"onnxruntime {machine.onnxruntime}" if machine.onnxruntime else "no onnxruntime"
    return Text(
        f"{machine.cpu}: {sets}; uint8 × int8 is {exact}\n"
        f"{runtime}: {', '.join(machine.providers) or 'no providers'}"
    )


def _hazard(hazard: Hazard) -> Text:
    text = Text.assemble((SEVERITIES[hazard.severity], STYLES.get(hazard.severity, "bold")), " ")
    text.append(hazard.message)
    if hazard.layers:
        more = len(hazard.layers) - NAMED_LAYERS
        listed = ", ".join(hazard.layers[:NAMED_LAYERS]) + (f" and {more} more" if more > 0 else "")
        text.append(f"\n{listed}", QUIET)
    text.append(f"\n→ {hazard.remedy}")
    return text


def _heading(title: str) -> Text:
    return Text(f"\n{title}", TITLE)


def _plain(rows: Sequence[tuple[str, ...]]) -> Table:
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(width=1)
    for row in rows:
        table.add_row("", *(Text(cell, overflow="fold") for cell in row))
    return table


def _shortened(value: str) -> str:
    line = " ".join(value.split())
    if len(line) <= LONGEST_VALUE:
        return line
    return f"{line[:LONGEST_VALUE]}… ({len(value):,} characters)"


def amount(num_bytes: int) -> str:
    """Bytes with their unit, small ones too: ``135.8 MB``, ``2.3 kB``, ``64 B``."""
    if num_bytes < 1000:
        return f"{num_bytes} B"
    return size(num_bytes) if num_bytes >= MB else f"{num_bytes / 1000:.1f} kB"


def _count(number: int) -> str:
    for limit, unit in ((10**9, "billion"), (10**6, "million")):
        if number >= limit:
            return f"{number / limit:.1f} {unit}"
    return f"{number:,}"
