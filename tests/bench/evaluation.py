"""How long evaluating a model takes on torch and on onnxruntime, by likelihood and by generation.

    nox -s bench -- evaluation --model DIR --text test.txt

Float and w8a8, each as the checkpoint and as its ONNX export, in one process, one thread and in
turns; CPU seconds, so that a busy machine disturbs little. Likelihood is ``likelihood.evaluate`` on
a batch of sequences of many lengths; generation is ``generation.generate`` on prompts of many
lengths. ONNX is at least as fast as torch where a ratio is 1 or more.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

import quantship
from quantship import models
from quantship.artifact import Artifact
from quantship.data.prepare import collate
from quantship.job import Job
from quantship.quant.scheme import SCHEMES
from quantship.recipe.language import QuantizeStep, TinyModel
from quantship.runtimes.base import Runtime, open_runtime
from quantship.runtimes.generation import generate
from quantship.stages import quantize
from quantship.tasks import likelihood
from quantship.tiny import build_model, build_tokenizer

SCHEME = "w8a8"
BUILT_IN = TinyModel(
    hidden_size=512, intermediate_size=1536, num_layers=8, num_heads=8, num_kv_heads=2
)
SEQUENCES = (192, 150, 110, 192)
"""Tokens of each sequence of the batch whose likelihood is evaluated."""
PROMPTS = (96, 56, 87, 65, 140, 86, 74, 101)
"""Tokens of each prompt; those of the first questions of GSM8K's test set."""
WIDTH = 110


@dataclass(frozen=True)
class Row:
    """What evaluating one model took, in CPU seconds; medians over the rounds.

    Args:
        form: ``float`` or the scheme.
        runtime: What ran it.
        likelihood_s: Of the batch of sequences.
        generation_s: Of all prompts and their answers.
    """

    form: str
    runtime: str
    likelihood_s: float
    generation_s: float


def main(arguments: list[str]) -> None:
    """Measure, print a table, and write the figures as JSON where asked to."""
    parser = argparse.ArgumentParser(
        prog="evaluation", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=Path, help="Hugging Face directory with float weights")
    parser.add_argument("--text", type=Path, help="text to take tokens from; default: random ones")
    parser.add_argument("--rounds", type=int, default=3, help="turns of every model")
    parser.add_argument("--new-tokens", type=int, default=24, help="tokens of every answer")
    parser.add_argument("--batch", type=int, default=8, help="prompts at once")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as scratch:
        work = Path(scratch)
        made = make(options.model or _built_in(work / "model"), work)
        tokens = _tokens(made["float", "checkpoint"], options.text)
        rows = measure(made, tokens, options.rounds, options.new_tokens, options.batch)
    console = Console(width=None if sys.stdout.isatty() else WIDTH)
    show(console, rows)
    if options.json:
        figures = {"rows": [asdict(row) for row in rows], "ratios": ratios(rows)}
        options.json.write_text(json.dumps(figures, indent=2) + "\n")


def make(model: Path, work: Path) -> dict[tuple[str, str], Path]:
    """The model in float and rounded, each as a checkpoint and as ONNX, by form and kind."""
    rounded = work / "rounded"
    rounded.mkdir()
    step = QuantizeStep(stage="quantize", scheme=SCHEME)
    settings = quantize.Settings(step=step, scheme=SCHEMES[SCHEME])
    source = Artifact(model, "model", "", {})
    quantize.run(Job(settings, {"model": source}, rounded, work / "resume"))
    made = {}
    for form, checkpoint in (("float", model), (SCHEME, rounded)):
        exported = work / f"{form}-onnx"
        quantship.export(checkpoint, exported)
        made[form, "checkpoint"], made[form, "onnx"] = checkpoint, exported
    return made


def measure(
    made: dict[tuple[str, str], Path], tokens: list[int], rounds: int, new_tokens: int, batch: int
) -> list[Row]:
    """Evaluate every model in turn, after each has been warmed up by a turn that does not count."""
    runtimes = {key: open_runtime(path, 1) for key, path in made.items()}
    sequences = collate(
        [{"input_ids": row, "labels": row} for row in _cut(tokens, SEQUENCES)], pad_token_id=0
    )
    prompts = _cut(tokens, PROMPTS)
    work: dict[str, Callable[[Runtime], Any]] = {
        "likelihood_s": lambda runtime: likelihood.evaluate(runtime, [sequences]),
        "generation_s": lambda runtime: generate(runtime, prompts, new_tokens, batch_size=batch),
    }
    taken: dict[tuple[str, str], dict[str, list[float]]] = {
        key: {name: [] for name in work} for key in runtimes
    }
    for turn in range(rounds + 1):
        for key, runtime in runtimes.items():
            for name, evaluate in work.items():
                seconds = _cpu_seconds(evaluate, runtime)
                if turn > 0:
                    taken[key][name].append(seconds)
    return [
        Row(form, runtimes[form, kind].name, **{n: statistics.median(s) for n, s in times.items()})
        for (form, kind), times in taken.items()
    ]


def ratios(rows: list[Row]) -> dict[str, dict[str, float]]:
    """How many times as fast ONNX is as the checkpoint that it was made of, by form and kind."""
    found: dict[str, dict[str, float]] = {}
    for exported in (row for row in rows if row.runtime == "onnxruntime"):
        source = next(row for row in rows if row.form == exported.form and row is not exported)
        found[exported.form] = {
            "likelihood": source.likelihood_s / exported.likelihood_s,
            "generation": source.generation_s / exported.generation_s,
        }
    return found


def show(console: Console, rows: list[Row]) -> None:
    """The figures as a table for people."""
    found = ratios(rows)
    table = Table(title="Evaluating, one thread, in turns")
    for place, name in enumerate(("model", "likelihood CPU s", "×", "generation CPU s", "×")):
        table.add_column(name, justify="right" if place else "left")
    for row in rows:
        faster = found[row.form] if row.runtime == "onnxruntime" else {}
        cells = [f"{faster[name]:.2f}" if faster else "" for name in ("likelihood", "generation")]
        table.add_row(
            f"{row.form} on {row.runtime}",
            *(f"{row.likelihood_s:.2f}", cells[0], f"{row.generation_s:.2f}", cells[1]),
        )
    console.print(table)
    reached = all(ratio >= 1 for each in found.values() for ratio in each.values())
    said = "is" if reached else "is not always"
    console.print(f"× is how much faster ONNX is than its checkpoint: it {said} as fast or faster.")


def _cpu_seconds(evaluate: Callable[[Runtime], Any], runtime: Runtime) -> float:
    began = time.process_time()
    evaluate(runtime)
    return time.process_time() - began


def _cut(tokens: list[int], lengths: tuple[int, ...]) -> list[list[int]]:
    """Pieces of these lengths, one after the other."""
    ends = np.cumsum(lengths).tolist()
    return [tokens[end - length : end] for length, end in zip(lengths, ends, strict=True)]


def _tokens(model: Path, text: Path | None) -> list[int]:
    needed = max(sum(SEQUENCES), sum(PROMPTS))
    if text is None:
        vocabulary = int(models.read_config(model)["vocab_size"])
        return list(map(int, np.random.default_rng(0).integers(4, vocabulary, needed)))
    read = models.load_tokenizer(model)(text.read_text(encoding="utf-8")[: 20 * needed])
    return list(read["input_ids"])[:needed]


def _built_in(out: Path) -> Path:
    tokenizer = build_tokenizer(BUILT_IN.max_positions)
    build_model(BUILT_IN, tokenizer, seed=0).save_pretrained(out)
    tokenizer.save_pretrained(out)
    return out
