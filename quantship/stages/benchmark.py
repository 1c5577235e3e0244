"""Measure speed and memory of all models of a run, in turns, each in a process of its own."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from quantship.artifact import Facts
from quantship.errors import QuantshipError
from quantship.frozen import Frozen
from quantship.job import Job
from quantship.recipe.language import Benchmark

REVISION = 1
VOCABULARY = "vocabulary of"
"""Role of the model whose vocabulary the synthetic tokens come from."""


class Settings(Frozen):
    """What a benchmark depends on, beside the models: the machine is part of it."""

    benchmark: Benchmark
    threads: int
    seed: int
    machine: dict[str, str]


def run(job: Job) -> Facts:
    """One entry for each input, by role.

    Every round runs all models once before the next begins, so that a slow minute of the machine
    falls on all of them; reported are medians over the rounds.
    """
    from quantship import progress
    from quantship.models import read_config

    settings: Settings = job.settings
    options = settings.benchmark
    vocabulary = read_config(job.inputs[VOCABULARY].path)["vocab_size"]
    models = {role: item.path for role, item in job.inputs.items() if role != VOCABULARY}
    request = {
        "threads": settings.threads,
        "batch_size": options.batch_size,
        "prompt_tokens": options.prompt_tokens,
        "decode_tokens": options.decode_tokens,
        "vocabulary": vocabulary,
        "seed": settings.seed,
    }
    turns = [(name, path) for _ in range(options.rounds) for name, path in models.items()]
    results: dict[str, list[dict[str, Any]]] = {name: [] for name in models}
    for name, path in progress.track(turns, "benchmarking", len(turns)):
        results[name].append(_measure(path, request))
    return {name: _summary(rounds, settings) for name, rounds in results.items()}


def _measure(path: Path, request: dict[str, Any]) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "quantship.runtimes.measure"],
        input=json.dumps({"path": str(path), **request}),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        last = done.stderr.strip().splitlines()[-1:] or ["no message"]
        raise QuantshipError(f"{path} could not be measured: {last[0]}")
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def _summary(rounds: list[dict[str, Any]], settings: Settings) -> Facts:
    options = settings.benchmark
    batch = options.batch_size
    latencies_ms = sorted(1000 * seconds for one in rounds for seconds in one["decode_s"])
    p50 = statistics.median(latencies_ms)
    p95 = latencies_ms[min(len(latencies_ms) - 1, round(0.95 * len(latencies_ms)))]
    prefill_s = statistics.median(one["prefill_s"] for one in rounds)
    return {
        "runtime": rounds[0]["runtime"],
        "prefill_tokens_per_s": batch * options.prompt_tokens / prefill_s,
        "decode_tokens_per_s": batch * 1000 / p50,
        "latency_ms_p50": p50,
        "latency_ms_p95": p95,
        "peak_rss_bytes": max(one["peak_rss_bytes"] for one in rounds),
        "batch_size": batch,
        "prompt_tokens": options.prompt_tokens,
        "decode_tokens": options.decode_tokens,
        "threads": settings.threads,
        "rounds": options.rounds,
    }
