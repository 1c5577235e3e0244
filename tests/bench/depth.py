"""What quantizing without data costs on a Llama of a billion random parameters, and by depth.

    nox -s bench -- depth --out DIR

Round to nearest in 8 and in 4 bits through the stage, each model in a process of its own: time,
peak memory, and whether the cost is a straight line over the number of layers.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import apart
import numpy as np
import random_llama
from rich.console import Console

from quantship.quant.scheme import SCHEMES
from quantship.tiny import build_tokenizer

HERE = Path(__file__).parent
MOST_SECONDS, MOST_MEMORY, LEAST_R2 = 60.0, 1.3, 0.98
INT8 = ("w8a8", "w8a16")


def main(words: list[str]) -> None:
    """Measure, print the table and the bars, and draw the plot where asked to."""
    parser = argparse.ArgumentParser(
        prog="depth", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, help="directory for depth.json, depth.md and depth.svg")
    parser.add_argument("--layers", type=int, nargs="+", default=[2, 4, 8, 16])
    parser.add_argument("--schemes", nargs="+", default=["w8a8", "w4a16-g32"])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--work", type=Path, help="where models lie meanwhile: 6 GB")
    parser.add_argument("--small", action="store_true", help="a 64th of the width, to try it out")
    options = parser.parse_args(words)
    console = Console(width=170)
    if options.work is not None:
        options.work.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=options.work, prefix="depth-") as work:
        found = measure(console, Path(work), options)
    text = render(found)
    console.print(text, markup=False, highlight=False, soft_wrap=True)
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
        (options.out / "depth.json").write_text(json.dumps(found, indent=1) + "\n")
        (options.out / "depth.md").write_text(text)
        draw(found, options.out / "depth.svg")


def measure(console: Console, work: Path, options: argparse.Namespace) -> list[dict[str, Any]]:
    """A row for each number of layers and scheme."""
    small = {"hidden": 128, "intermediate": 256, "heads": 4, "kv_heads": 2, "vocab": 512}
    shape = small if options.small else {}
    found = []
    for layers in options.layers:
        source = work / f"source-{layers}"
        weight_bytes = random_llama.write(source, layers=layers, **shape)
        build_tokenizer(256).save_pretrained(source)
        for name in options.schemes:
            request = {
                "model": str(source),
                "scheme": SCHEMES[name].model_dump(),
                "step": {},
                "out": str(work / "out"),
                "resume": str(work / "resume"),
                "threads": options.threads,
            }
            answer = apart.run(HERE / "ptq_turn.py", request, threads=options.threads)
            del answer["facts"]
            row = {"layers": layers, "scheme": name, "weight_bytes": weight_bytes, **answer}
            found.append(row)
            console.print(
                f"{layers} layers, {name}: {row['seconds']:.1f} s, "
                f"{row['peak_rss_bytes'] / weight_bytes:.2f} × the weights in memory",
                markup=False,
            )
            for left in ("out", "resume"):
                shutil.rmtree(work / left, ignore_errors=True)
        shutil.rmtree(source)
    return found


def straightness(layers: list[int], cost: list[float]) -> float:
    """R² of a straight line through a cost over the number of layers."""
    x, y = np.array(layers, float), np.array(cost, float)
    slope, start = np.polyfit(x, y, 1)
    residue, spread = y - (slope * x + start), y - y.mean()
    return float(1 - residue @ residue / (spread @ spread))


def render(found: list[dict[str, Any]]) -> str:
    """The table and the bars as Markdown."""
    header = ("scheme", "layers", "BF16 MB", "s", "CPU s", "peak MB", "× BF16", "own MB", "MB")
    lines = [f"| {' | '.join(header)} |", f"| --- |{' ---: |' * (len(header) - 1)}"]
    for row in found:
        own = row["peak_anonymous_bytes"]
        cells = (
            *(row["scheme"], str(row["layers"]), _mb(row["weight_bytes"])),
            *(f"{row['seconds']:.1f}", f"{row['cpu_seconds']:.1f}", _mb(row["peak_rss_bytes"])),
            f"{row['peak_rss_bytes'] / row['weight_bytes']:.2f}",
            *("–" if own is None else _mb(own), _mb(row["size_bytes"])),
        )
        lines.append(f"| {' | '.join(cells)} |")
    lines += ["", "Peak is resident memory with the pages of the mapped file; own is without.", ""]
    for scheme in dict.fromkeys(row["scheme"] for row in found):
        rows = [row for row in found if row["scheme"] == scheme]
        deepest = max(rows, key=lambda row: row["layers"])
        by_weights = deepest["peak_rss_bytes"] / deepest["weight_bytes"]
        if scheme in INT8:
            lines.append(_bar(f"{scheme}: seconds", deepest["seconds"], MOST_SECONDS))
            lines.append(_bar(f"{scheme}: memory by BF16 weights", by_weights, MOST_MEMORY))
        if len(rows) > 2:
            layers = [row["layers"] for row in rows]
            value = straightness(layers, [row["cpu_seconds"] for row in rows])
            told = f"{scheme}: R² of a straight line of CPU seconds over layers"
            verdict = "held" if value >= LEAST_R2 else "missed"
            lines.append(f"- {told}: {value:.3f}, at least {LEAST_R2}: {verdict}")
    return "\n".join(lines) + "\n"


def draw(found: list[dict[str, Any]], file: Path) -> None:
    """Seconds and peak memory over the number of layers."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(9, 3.5), layout="constrained")
    for scheme in dict.fromkeys(row["scheme"] for row in found):
        rows = [row for row in found if row["scheme"] == scheme]
        layers = [row["layers"] for row in rows]
        axes[0].plot(layers, [row["cpu_seconds"] for row in rows], marker="o", label=scheme)
        axes[1].plot(
            layers, [row["peak_rss_bytes"] / 1e9 for row in rows], marker="o", label=scheme
        )
    first = [row for row in found if row["scheme"] == found[0]["scheme"]]
    axes[1].plot(
        [row["layers"] for row in first],
        [row["weight_bytes"] / 1e9 for row in first],
        linestyle="--",
        color="gray",
        label="BF16 weights",
    )
    for axis, title in zip(axes, ("CPU seconds", "peak memory, GB"), strict=True):
        axis.set(title=title, xlabel="layers", ylim=(0, None))
        axis.legend(frameon=False)
    figure.savefig(file)
    pyplot.close(figure)


def _bar(what: str, value: float, limit: float) -> str:
    return f"- {what}: {value:.2f}, at most {limit:g}: {'held' if value <= limit else 'missed'}"


def _mb(size: float) -> str:
    return f"{size / 1e6:.0f}"
