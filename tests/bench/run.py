"""Measure what quantship claims about speed and memory: ``nox -s bench -- --model DIR``.

Without ``--model`` a model of 25 million random parameters is measured. Every comparison is taken
in turns within this one run: read the ratios. Run nothing beside it.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import training
from rich.console import Console
from rich.table import Table

from quantship import hardware, models
from quantship.artifact import Artifact
from quantship.exporters.lowering import reject
from quantship.job import Job
from quantship.quant.scheme import SCHEMES
from quantship.recipe.language import Benchmark, QuantizeStep, TinyModel
from quantship.stages import benchmark, quantize
from quantship.tiny import build_model, build_tokenizer

BUILT_IN = TinyModel(
    hidden_size=512, intermediate_size=1536, num_layers=8, num_heads=8, num_kv_heads=2
)
SCHEME = SCHEMES["w8a8"]
EXPORT = """
import json, sys, time
from pathlib import Path
from quantship.exporters import decoder
from quantship.exporters.targets import resolve
from quantship.hardware import peak_rss_bytes
source, lowering, scheme, out = sys.argv[1:]
began = time.perf_counter()
decoder.export(Path(source), lowering, scheme or None, Path(out), resolve("this-machine"))
seconds = time.perf_counter() - began
print(json.dumps({"seconds": seconds, "peak_rss_bytes": peak_rss_bytes()}))
"""


def main() -> None:
    """Measure, print tables, and write the figures as JSON where asked to."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, help="Hugging Face directory with float weights")
    parser.add_argument("--steps", type=int, default=8, help="optimizer steps a turn of training")
    parser.add_argument("--rounds", type=int, default=3, help="turns of every contestant")
    parser.add_argument("--json", type=Path, help="write all figures to this file")
    options = parser.parse_args()
    console = Console()
    with tempfile.TemporaryDirectory() as scratch:
        work = Path(scratch)
        source = options.model or _built_in(work / "model")
        float32_bytes = models.num_parameters(source) * 4
        console.print(
            f"{source}: {float32_bytes / 4e6:.1f} M parameters, {hardware.cpu_model()}, "
            f"{hardware.num_threads()} threads, {', '.join(hardware.instruction_sets())}"
        )
        checkpoint = _quantized(source, work / "checkpoint")
        exports = _exports(source, checkpoint, work, float32_bytes)
        _print(console, "Export, each in a process of its own", exports)
        speed = _speed(source, checkpoint, work, options.rounds)
        _print(console, "Serving, in turns, 256 tokens of prompt and 32 decoded", speed)
        trained = _training(source, options.steps, options.rounds)
        _print(console, "Training, in turns, batch 2 of 256 tokens, float32", trained)
    if options.json:
        figures = {"export": exports, "serving": speed, "training": trained}
        options.json.write_text(json.dumps(figures, indent=2) + "\n")


def _built_in(out: Path) -> Path:
    tokenizer = build_tokenizer(BUILT_IN.max_positions)
    build_model(BUILT_IN, tokenizer, seed=0).save_pretrained(out)
    tokenizer.save_pretrained(out)
    return out


def _quantized(source: Path, out: Path) -> Path:
    out.mkdir()
    step = QuantizeStep(stage="quantize", name="ptq", scheme=SCHEME.name)
    model = Artifact(source, "model", "", {})
    quantize.run(Job(quantize.Settings(step=step, scheme=SCHEME), {"model": model}, out, out))
    return out


def _exports(
    source: Path, checkpoint: Path, work: Path, float32_bytes: int
) -> list[dict[str, Any]]:
    rows = []
    for lowering in ("float", "nbits", "integer"):
        scheme = None if lowering == "float" else SCHEME
        assert reject(scheme, lowering) is None
        out = work / lowering
        out.mkdir()
        arguments = [
            source if scheme is None else checkpoint,
            lowering,
            scheme.name if scheme else "",
            out,
        ]
        done = subprocess.run(
            [sys.executable, "-c", EXPORT, *map(str, arguments)],
            capture_output=True,
            text=True,
            check=True,
        )
        measured = json.loads(done.stdout.splitlines()[-1])
        size = models.weight_bytes(out)
        rows.append(
            {
                "lowering": lowering,
                "seconds": measured["seconds"],
                "peak memory / float32 weights": measured["peak_rss_bytes"] / float32_bytes,
                "MB": size / 1e6,
                "smaller than float32": models.weight_bytes(work / "float") / size,
            }
        )
    return rows


def _speed(source: Path, checkpoint: Path, work: Path, rounds: int) -> list[dict[str, Any]]:
    paths = {
        "torch float32": source,
        "torchao w8a8": checkpoint,
        **{f"onnx {name}": work / name for name in ("float", "nbits", "integer")},
    }
    inputs = {name: Artifact(path, "", "", {}) for name, path in paths.items()}
    settings = benchmark.Settings(
        benchmark=Benchmark(rounds=rounds), threads=hardware.num_threads(), seed=0, machine={}
    )
    vocabulary = {benchmark.VOCABULARY: Artifact(source, "", "", {})}
    facts = benchmark.run(Job(settings, {**vocabulary, **inputs}, work, work))
    base = facts["onnx float"]
    return [
        {
            "model": name,
            "prefill tok/s": row["prefill_tokens_per_s"],
            "× onnx float": row["prefill_tokens_per_s"] / base["prefill_tokens_per_s"],
            "decode tok/s": row["decode_tokens_per_s"],
            "× onnx float ": row["decode_tokens_per_s"] / base["decode_tokens_per_s"],
            "peak MB": row["peak_rss_bytes"] / 1e6,
        }
        for name, row in facts.items()
    ]


def _training(source: Path, steps: int, rounds: int) -> list[dict[str, Any]]:
    """Every contestant in turn, each turn in a process of its own."""
    turns: dict[str, list[dict[str, float]]] = {name: [] for name in training.CONTESTANTS}
    for _ in range(rounds):
        for name, measured in turns.items():
            command = [sys.executable, training.__file__, str(source), name, str(steps)]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            measured.append(json.loads(done.stdout.splitlines()[-1]))
    medians = {
        name: {key: statistics.median(turn[key] for turn in measured) for key in measured[0]}
        for name, measured in turns.items()
    }
    base = medians["finetune"]
    return [
        {
            "training": name,
            "s a step": median["seconds"],
            "× finetune": median["seconds"] / base["seconds"],
            "peak MB": median["peak_rss_bytes"] / 1e6,
            "× finetune ": median["peak_rss_bytes"] / base["peak_rss_bytes"],
        }
        for name, median in medians.items()
    ]


def _print(console: Console, title: str, rows: list[dict[str, Any]]) -> None:
    table = Table(*rows[0], title=title)
    for row in rows:
        table.add_row(
            *(f"{value:.2f}" if isinstance(value, float) else value for value in row.values())
        )
    console.print(table)


if __name__ == "__main__":
    began = time.monotonic()
    main()
    Console().print(f"{time.monotonic() - began:.0f} s")
