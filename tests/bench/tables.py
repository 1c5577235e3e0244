"""The figures of the benchmark as tables for people."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from bars import Judgement, champion
from contestants import BASE, Contestant, Made
from rich.console import Console
from rich.table import Table
from serving import Served, size_bytes

from quantship.reporting import formatting


def exports(
    console: Console,
    contestants: Iterable[Contestant],
    made: Mapping[str, Made],
    float32_bytes: int,
) -> None:
    """What exporting took."""
    rows = []
    for one in contestants:
        result = made.get(one.name)
        if one.exports and result is not None and result.path is not None:
            assert result.seconds is not None
            assert result.peak_rss_bytes is not None
            rows.append(
                (
                    one.name,
                    f"{result.seconds:.1f}",
                    formatting.megabytes(result.peak_rss_bytes),
                    formatting.ratio(result.peak_rss_bytes / float32_bytes),
                    formatting.megabytes(size_bytes(result.path)),
                )
            )
    header = ("export", "s", "peak MB", "× float32 weights", "MB")
    _print(console, "Export, each in a process of its own", header, rows)


def serving(console: Console, served: list[Served], read_bytes_per_s: float) -> None:
    """How fast, small and exact everyone was, the float32 graph being 1."""
    base = next(row for row in served if row.name == BASE)
    rows = []
    for row in served:
        ratio = floor = formatting.DASH
        if row.share_of_memory_floor is not None:
            floor = formatting.share(row.share_of_memory_floor)
        if row.perplexity is not None and base.perplexity is not None:
            ratio = formatting.change(row.perplexity, base.perplexity)
        rows.append(
            (
                row.name,
                formatting.speed(row.prefill_tokens_per_s) + ("*" if row.last_only else ""),
                formatting.ratio(row.prefill_tokens_per_s / base.prefill_tokens_per_s),
                formatting.speed(row.decode_tokens_per_s),
                formatting.ratio(row.decode_tokens_per_s / base.decode_tokens_per_s),
                f"{100 * row.spread:.0f} %",
                floor,
                formatting.megabytes(row.size_bytes),
                f"{row.size_bytes / base.size_bytes:.3f}",
                formatting.megabytes(row.peak_rss_bytes),
                formatting.number(row.perplexity),
                ratio,
            )
        )
    header = (
        *("model", "prefill tok/s", "×", "decode tok/s", "×", "spread", "of floor"),
        *("MB", "by float32", "peak MB", "perplexity", "change"),
    )
    title = "Serving, in turns, 256 tokens of prompt and 32 decoded"
    _print(console, title, header, rows)
    console.print("* computes the last position's logits of a prompt; the others, all positions'")
    console.print(
        f"× and change are against {BASE}. Memory was read at {read_bytes_per_s / 1e9:.1f} GB/s; "
        "the floor is the time that reading the weights takes at that speed."
    )


def bars(console: Console, judgements: list[Judgement]) -> None:
    """Each bar with its figure and whether it was reached."""
    rows = [
        (
            one.bar.what,
            one.bar.demand,
            formatting.DASH if one.figure is None else f"{one.figure:.3f}",
            one.verdict,
        )
        for one in judgements
    ]
    title = "Bars for SmolLM2-135M on two idle cores with AVX2"
    _print(console, title, ("bar", "limit", "measured", ""), rows)


def champions(console: Console, served: list[Served]) -> None:
    """Which of quantship's models the bars were measured on."""
    for family in ("int8", "int4"):
        console.print(f"{family} stands for {champion(served, family).name}")


def training(console: Console, rows: list[dict[str, Any]]) -> None:
    """What a step of each training took."""
    cells = [
        tuple(f"{value:.2f}" if isinstance(value, float) else value for value in row.values())
        for row in rows
    ]
    title = "Training, in turns, batch 2 of 256 tokens, float32"
    _print(console, title, tuple(rows[0]), cells)


def _print(
    console: Console, title: str, header: tuple[str, ...], rows: Iterable[tuple[str, ...]]
) -> None:
    table = Table(title=title)
    for place, name in enumerate(header):
        table.add_column(name, justify="right" if place > 0 else "left")
    for row in rows:
        table.add_row(*row)
    console.print(table)
