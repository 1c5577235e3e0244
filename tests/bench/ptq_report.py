"""The table of post-training quantization as Markdown, and its bars."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ptq_cases import BASELINE

DASH = "–"
BARS = (
    ("w4a16-g", "gptq", 0.30),
    ("w4a16-g", "awq", 0.30),
    ("w8a8-static", "smoothquant", 0.50),
)
"""Start of the scheme's name, way, and share of round-to-nearest's loss that it has to recover."""


@dataclass(frozen=True)
class Row:
    """One way in one scheme, over the seeds.

    Args:
        scheme: Name of the scheme.
        way: Name of the way.
        num_seeds: Seeds that were measured; 1 where no data is looked at.
        perplexity: Mean over the seeds, by text.
        spread: Greatest less least, by text.
        recovered: Share of the loss in nats that ``BASELINE`` adds, mean over the seeds, by text;
            None for itself, or where it loses nothing.
        seconds: Median.
        cpu_seconds: Median.
        peak_rss_bytes: Greatest.
        size_bytes: Of the checkpoint.
    """

    scheme: str
    way: str
    num_seeds: int
    perplexity: Mapping[str, float]
    spread: Mapping[str, float]
    recovered: Mapping[str, float | None]
    seconds: float
    cpu_seconds: float
    peak_rss_bytes: int
    size_bytes: int


def rows(results: Mapping[str, Any]) -> list[Row]:
    """One row for each way in each scheme that has a result."""
    done = [one for one in results["cases"].values() if "error" not in one]
    found = []
    for scheme, way in dict.fromkeys((one["scheme"], one["way"]) for one in done):
        turns = [one for one in done if (one["scheme"], one["way"]) == (scheme, way)]
        base = [one for one in done if (one["scheme"], one["way"]) == (scheme, BASELINE)]
        names = list(turns[0]["losses"])
        perplexities = {
            name: [turn["losses"][name]["perplexity"] for turn in turns] for name in names
        }
        found.append(
            Row(
                scheme=scheme,
                way=way,
                num_seeds=len(turns),
                perplexity={name: statistics.fmean(each) for name, each in perplexities.items()},
                spread={name: max(each) - min(each) for name, each in perplexities.items()},
                recovered={
                    name: None
                    if way == BASELINE
                    else _recovered(name, turns, base, results["float"][name])
                    for name in names
                },
                seconds=statistics.median(turn["seconds"] for turn in turns),
                cpu_seconds=statistics.median(turn["cpu_seconds"] for turn in turns),
                peak_rss_bytes=max(turn["peak_rss_bytes"] for turn in turns),
                size_bytes=turns[0]["size_bytes"],
            )
        )
    return found


def _recovered(
    name: str, turns: list[Any], base: list[Any], floating: Mapping[str, float]
) -> float | None:
    """Mean over the seeds, each against the baseline of the same seed where it has seeds."""
    of_seed = {one["seed"]: one["losses"][name]["mean_loss"] for one in base}
    shares = []
    for turn in turns:
        lost_to = of_seed.get(turn["seed"], of_seed.get(None))
        if lost_to is None or lost_to <= floating["mean_loss"]:
            continue
        lost = lost_to - floating["mean_loss"]
        shares.append((lost_to - turn["losses"][name]["mean_loss"]) / lost)
    return statistics.fmean(shares) if shares else None


def render(results: Mapping[str, Any]) -> str:
    """Tables by scheme, bars, and what failed."""
    found = rows(results)
    names = list(results["float"])
    told = ", ".join(
        f"{name} {results['float'][name]['perplexity']:.3f} ({results['setting']['texts'][name]} "
        "tokens)"
        for name in names
    )
    parts = [f"Perplexity in float: {told}. {results['setting']['sequences']} sequences calibrate."]
    for scheme in dict.fromkeys(row.scheme for row in found):
        parts.append(_table(scheme, [row for row in found if row.scheme == scheme], names))
    parts.append("\n".join(judge(found)))
    failed = [
        f"- {key}: {one['error'].strip().splitlines()[-1]}"
        for key, one in results["cases"].items()
        if "error" in one
    ]
    if failed:
        parts.append("Failed:\n" + "\n".join(failed))
    return "\n\n".join(parts) + "\n"


def judge(found: Iterable[Row]) -> list[str]:
    """A line for each bar: on every text that was measured, the worst counts."""
    lines = []
    kept = list(found)
    for scheme, way, share in BARS:
        coarse = [
            row
            for row in kept
            if row.scheme.startswith(scheme) and row.way == way and row.scheme != "w4a16-g32"
        ]
        if not coarse:
            lines.append(f"- {way} at {scheme}: not measured")
        for row in coarse:
            shares = [one for one in row.recovered.values() if one is not None]
            if not shares:
                lines.append(f"- {way} at {row.scheme}: round-to-nearest lost nothing")
                continue
            each = ", ".join(f"{name} {_share(one)}" for name, one in row.recovered.items())
            verdict = "held" if min(shares) >= share else "missed"
            lines.append(
                f"- {way} at {row.scheme} recovers at least {share:.0%}: {verdict} ({each})"
            )
    return lines


def _table(scheme: str, found: list[Row], names: list[str]) -> str:
    header = ["way", "seeds"]
    for name in names:
        header += [f"{name}: perplexity", "± range", "recovered"]
    header += ["s", "CPU s", "peak MB", "MB"]
    lines = [
        f"### {scheme}",
        "",
        f"| {' | '.join(header)} |",
        f"| --- |{' ---: |' * (len(header) - 1)}",
    ]
    for row in sorted(found, key=lambda row: next(iter(row.perplexity.values()))):
        cells = [row.way, str(row.num_seeds)]
        for name in names:
            spread = f"{row.spread[name]:.3f}" if row.num_seeds > 1 else DASH
            cells += [f"{row.perplexity[name]:.3f}", spread, _share(row.recovered[name])]
        cells += [
            f"{row.seconds:.0f}",
            f"{row.cpu_seconds:.0f}",
            f"{row.peak_rss_bytes / 1e6:.0f}",
            f"{row.size_bytes / 1e6:.0f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _share(value: float | None) -> str:
    return DASH if value is None else f"{100 * value:.0f} %"
