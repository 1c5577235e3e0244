"""Measure speed and memory of all models of a run, in turns, each in a process of its own."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from quantship import hardware, memory
from quantship.artifact import Facts
from quantship.errors import QuantshipError
from quantship.frozen import Frozen
from quantship.job import Job
from quantship.recipe.language import Benchmark
from quantship.runtimes.kinds import kind_of

REVISION = 3
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
    falls on all of them; reported are medians over the rounds. So it goes with the speed at which
    memory is read, which no decoding can beat.
    """
    from quantship import progress
    from quantship.models import read_config
    from quantship.runtimes import bandwidth, weights

    settings: Settings = job.settings
    options = settings.benchmark
    config = read_config(job.inputs[VOCABULARY].path)
    models = {role: item.path for role, item in job.inputs.items() if role != VOCABULARY}
    request = {
        "threads": settings.threads,
        "batch_size": options.batch_size,
        "prompt_tokens": options.prompt_tokens,
        "decode_tokens": options.decode_tokens,
        "precision": options.precision,
        "compiled": options.compile,
        **_inputs(config),
        "seed": settings.seed,
    }
    turns = [(name, path) for _ in range(options.rounds) for name, path in models.items()]
    results: dict[str, list[dict[str, Any]]] = {name: [] for name in models}
    reads = []  # bytes a second that memory gave, a round
    for name, path in progress.track(turns, "benchmarking", len(turns)):
        if name == turns[0][0]:
            reads.append(bandwidth.measure_apart(settings.threads))
        results[name].append(_measure(path, request))
    facts = {name: _summary(rounds, settings) for name, rounds in results.items()}
    for name, path in models.items():
        on_gpu = facts[name]["device"] == "cuda"
        facts[name] |= {"warnings": []} if on_gpu else _advice(path)
        # What reads whole texts is bound by arithmetic, not by memory.
        if kind_of(config) != "texts" and not on_gpu:
            facts[name] |= _floor(facts[name], weights.bytes_per_token(path), reads)
    return facts


def _advice(path: Path) -> Facts:
    """What the machine of this benchmark does to a model that may have been made for another."""
    from quantship.exporters import advice
    from quantship.runtimes import built_for

    built = built_for.read(path)
    return {"warnings": list(advice.elsewhere(built, hardware.kind()))} if built else {}


def _inputs(config: dict[str, Any]) -> dict[str, int]:
    """What synthetic inputs are drawn from: tokens, or features of samples."""
    kind = kind_of(config)
    if kind == "samples":
        return {"features": config["sizes"][0]}
    drawn = {"vocabulary": config["vocab_size"]}
    return drawn | {"segments": config.get("type_vocab_size", 0) > 1} if kind == "texts" else drawn


def _measure(path: Path, request: dict[str, Any]) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "quantship.runtimes.measure"],
        input=json.dumps({"path": str(path), **request}),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        words = memory.killed(done.returncode) or "no message"
        last = done.stderr.strip().splitlines()[-1:] or [words]
        own = f"{QuantshipError.__module__}.{QuantshipError.__name__}: "
        raise QuantshipError(f"{path} could not be measured: {last[0].removeprefix(own)}")
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def _floor(measured: Facts, weight_bytes: int | None, reads: list[float]) -> Facts:
    """How near decoding came to the time that reading the weights takes; empty: unknown."""
    if weight_bytes is None:
        return {}
    read_bytes_per_s = statistics.median(reads)
    floor_ms = 1000 * weight_bytes / read_bytes_per_s
    return {
        "weight_bytes_per_token": weight_bytes,
        "read_bytes_per_s": read_bytes_per_s,
        "share_of_memory_floor": floor_ms / measured["latency_ms_p50"],
    }


def _summary(rounds: list[dict[str, Any]], settings: Settings) -> Facts:
    options = settings.benchmark
    batch = options.batch_size
    latencies_ms = sorted(1000 * seconds for one in rounds for seconds in one["decode_s"])
    p50 = statistics.median(latencies_ms)
    p95 = latencies_ms[min(len(latencies_ms) - 1, round(0.95 * len(latencies_ms)))]
    prefill_s = statistics.median(seconds for one in rounds for seconds in one["prefill_s"])
    return {
        "runtime": rounds[0]["runtime"],
        "device": rounds[0]["device"],
        "prefill_tokens_per_s": batch * options.prompt_tokens / prefill_s,
        "decode_tokens_per_s": batch * 1000 / p50,
        "latency_ms_p50": p50,
        "latency_ms_p95": p95,
        "peak_rss_bytes": max(one["peak_rss_bytes"] for one in rounds),
        "peak_gpu_bytes": max((one["peak_gpu_bytes"] or 0 for one in rounds), default=0) or None,
        "batch_size": batch,
        "prompt_tokens": options.prompt_tokens,
        "decode_tokens": options.decode_tokens,
        "threads": settings.threads,
        "rounds": options.rounds,
    }
