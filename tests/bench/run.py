"""Measure what quantship claims about speed, size and memory, beside what users would pick instead.

    nox -s bench                                               the built-in model, everything
    nox -s bench -- serving --model DIR --text test.txt        one part, a model of yours

Parts are ``export``, ``serving`` and ``training``; all of them where none is named. ``ptq``,
``peers``, ``depth`` and ``killed`` are benchmarks of quantization with options of their own, each
named alone: ``nox -s bench -- ptq --help``; ``evaluation`` is one of evaluating, likewise, and
``processes`` one of training by two processes. Without
``--model`` a model of 25 million random parameters is measured; ``--text`` is a file whose first
four windows of 512 tokens perplexity is measured on. Contestants that are not installed are left
out, with the reason. Every comparison is taken in turns within this one run: read the ratios, and
run nothing beside it. A bar that is missed fails nothing.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import bars
import depth
import evaluation
import killed
import peers_part
import processes
import ptq
import serving
import tables
import training
from contestants import contestants, make_all
from rich.console import Console

from quantship import hardware, models
from quantship.recipe.language import TinyModel
from quantship.tiny import build_model, build_tokenizer

PARTS = ("export", "serving", "training")
ALONE: dict[str, Callable[[list[str]], None]] = {
    "ptq": ptq.main,
    "peers": peers_part.main,
    "depth": depth.main,
    "killed": killed.main,
    "evaluation": evaluation.main,
    "processes": processes.main,
}
BUILT_IN = TinyModel(
    hidden_size=512, intermediate_size=1536, num_layers=8, num_heads=8, num_kv_heads=2
)
WIDTH = 170
"""Columns where the output is no terminal."""


def main() -> None:
    """Measure, print tables, and write the figures as JSON where asked to."""
    if sys.argv[1:2] and sys.argv[1] in ALONE:
        ALONE[sys.argv[1]](sys.argv[2:])
        return
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("parts", nargs="*", metavar="PART", help="export, serving, training")
    parser.add_argument("--model", type=Path, help="Hugging Face directory with float weights")
    parser.add_argument("--text", type=Path, help="text file to measure perplexity on")
    parser.add_argument("--openvino", action="store_true", help="OpenVINO too: minutes more")
    parser.add_argument("--rounds", type=int, default=3, help="turns of every contestant")
    parser.add_argument("--steps", type=int, default=8, help="optimizer steps a turn of training")
    parser.add_argument("--json", type=Path, help="write all figures to this file")
    options = parser.parse_args()
    unknown = set(options.parts) - set(PARTS)
    if unknown:
        parser.error(f"no such part: {', '.join(sorted(unknown))}; parts are {', '.join(PARTS)}")
    parts = options.parts or PARTS
    console = Console(width=None if sys.stdout.isatty() else WIDTH)
    with tempfile.TemporaryDirectory() as scratch:
        figures = _measure(console, Path(scratch), parts, options)
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2, default=str) + "\n")


def _measure(
    console: Console, work: Path, parts: tuple[str, ...], options: argparse.Namespace
) -> dict[str, Any]:
    model = options.model or _built_in(work / "model")
    float32_bytes = models.num_parameters(model) * 4
    threads = hardware.num_threads()
    figures: dict[str, Any] = {
        "model": str(model),
        "parameters": float32_bytes // 4,
        "cpu": hardware.cpu_model(),
        "instruction_sets": hardware.instruction_sets(),
        "threads": threads,
        "versions": hardware.versions(),
    }
    console.print(
        f"{model}: {float32_bytes / 4e6:.1f} M parameters, {hardware.cpu_model()}, {threads} "
        f"threads, {', '.join(hardware.instruction_sets())}",
        markup=False,
    )
    judged: dict[str, float] = {}
    if "export" in parts or "serving" in parts:
        serves = "serving" in parts
        everyone = contestants(openvino=options.openvino)
        made = make_all(console, everyone, model, work, exports_only=not serves)
        figures["made"] = {name: dataclasses.asdict(one) for name, one in made.items()}
        tables.exports(console, everyone, made, float32_bytes)
        judged |= bars.export_figures(everyone, made, float32_bytes)
        if serves:
            served, read_bytes_per_s = serving.serve(
                console,
                everyone,
                made,
                vocabulary=models.read_config(model)["vocab_size"],
                threads=threads,
                rounds=options.rounds,
                windows=serving.read_windows(model, options.text) if options.text else None,
            )
            figures["serving"] = [dataclasses.asdict(row) for row in served]
            figures["read_bytes_per_s"] = read_bytes_per_s
            tables.serving(console, served, read_bytes_per_s)
            judged |= bars.serving_figures(served)
            tables.champions(console, served)
        reason = "its contestant or --text is missing" if serves else "serving was not asked for"
        judgements = bars.judge(judged, reason)
        figures["bars"] = [
            {"bar": one.bar.what, "limit": one.bar.demand, "figure": one.figure}
            | {"verdict": one.verdict}
            for one in judgements
        ]
        tables.bars(console, judgements)
    if "training" in parts:
        figures["training"] = training.compare(model, options.steps, options.rounds)
        tables.training(console, figures["training"])
    return figures


def _built_in(out: Path) -> Path:
    tokenizer = build_tokenizer(BUILT_IN.max_positions)
    build_model(BUILT_IN, tokenizer, seed=0).save_pretrained(out)
    tokenizer.save_pretrained(out)
    return out


if __name__ == "__main__":
    began = time.monotonic()
    main()
    Console().print(f"{time.monotonic() - began:.0f} s")
