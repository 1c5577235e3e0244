"""How fast, how small and how exact every contestant is, measured in turns."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx_ir
import turn
from contestants import Contestant, Family, Made
from rich.console import Console

from quantship import models
from quantship.exporters.interface import NUM_LOGITS
from quantship.runtimes import bandwidth, weights
from quantship.runtimes.base import is_onnx

PROMPT_TOKENS, DECODE_TOKENS = 256, 32
NUM_WINDOWS, WINDOW = 4, 512


@dataclass(frozen=True)
class Served:
    """One contestant's figures: medians over the rounds.

    Args:
        name: Which contestant.
        family: Which others it is compared with.
        ours: Whether quantship exported it.
        prefill_tokens_per_s: Of one prompt of 256 tokens.
        decode_tokens_per_s: One token at a time after it.
        spread: Difference of the fastest and the slowest round's decoding, by the median.
        size_bytes: Graph and weights, or the GGUF file, which holds the vocabulary too.
        directory_bytes: All files, the tokenizer among them.
        peak_rss_bytes: Peak memory of its process.
        weight_bytes_per_token: Bytes of weights that a decoded token must read; None: not known.
        share_of_memory_floor: Time that reading them takes, by the time of a token.
        perplexity: On the text; None without one.
        last_only: Whether it computes the last position's logits of a prompt, not all.
        rounds: What was measured, a round.
    """

    name: str
    family: Family
    ours: bool
    prefill_tokens_per_s: float
    decode_tokens_per_s: float
    spread: float
    size_bytes: int
    directory_bytes: int
    peak_rss_bytes: int
    weight_bytes_per_token: int | None
    share_of_memory_floor: float | None
    perplexity: float | None
    last_only: bool
    rounds: tuple[dict[str, Any], ...]


def serve(
    console: Console,
    contestants: list[Contestant],
    made: dict[str, Made],
    *,
    vocabulary: int,
    threads: int,
    rounds: int,
    windows: list[list[int]] | None,
) -> tuple[list[Served], float]:
    """All of them in turns, and the bytes a second that memory gave meanwhile.

    A round runs every contestant once before the next begins, every other round backwards, so that
    what disturbs the machine falls on all of them.
    """
    paths = {
        one.name: path
        for one in contestants
        if one.serves and (path := made[one.name].path) is not None
    }
    request = {
        "threads": threads,
        "batch_size": 1,
        "prompt_tokens": PROMPT_TOKENS,
        "decode_tokens": DECODE_TOKENS,
        "vocabulary": vocabulary,
        "seed": 0,
    }
    measured: dict[str, list[dict[str, Any]]] = {name: [] for name in paths}
    reads = []
    for number in range(rounds):
        reads.append(bandwidth.measure_apart(threads))
        for name in list(paths)[:: 1 if number % 2 == 0 else -1]:
            measured[name].append(_turn(paths[name], request))
        console.print(f"round {number + 1} of {rounds}, memory {reads[-1] / 1e9:.1f} GB/s")
    read_bytes_per_s = statistics.median(reads)
    perplexities: dict[str, float] = {}
    if windows is not None:
        for name, path in paths.items():
            found = _turn(path, {"threads": threads, "windows": windows})
            perplexities[name] = found["perplexity"]
    return [
        _served(one, paths[one.name], measured[one.name], read_bytes_per_s, perplexities)
        for one in contestants
        if one.name in paths
    ], read_bytes_per_s


def read_windows(model: Path, text: Path) -> list[list[int]]:
    """The first windows of a text, in a model's tokens."""
    tokenizer = models.load_tokenizer(model)
    tokens = tokenizer(text.read_text(), verbose=False)["input_ids"][: NUM_WINDOWS * WINDOW]
    return [tokens[start : start + WINDOW] for start in range(0, len(tokens), WINDOW)]


def size_bytes(path: Path) -> int:
    """Bytes of graph and weights, by whomever they were written: all files named ``model``."""
    files = [*path.glob("model[.-]*"), *path.glob("openvino_model.*")]
    return sum(file.stat().st_size for file in files)


def _turn(path: Path, request: dict[str, Any]) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, turn.__file__],
        input=json.dumps({"path": str(path), **request}),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{path} could not be measured:\n{done.stderr}")
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def _served(
    one: Contestant,
    path: Path,
    rounds: list[dict[str, Any]],
    read_bytes_per_s: float,
    perplexities: dict[str, float],
) -> Served:
    decode_s = [statistics.median(turn["decode_s"]) for turn in rounds]
    median_s = statistics.median(decode_s)
    files = [file.stat().st_size for file in path.iterdir() if file.name != "export.log"]
    gguf = path / "model.gguf"
    if gguf.exists():
        import llama_runtime

        per_token: int | None = llama_runtime.bytes_per_token(gguf)
    else:
        per_token = weights.bytes_per_token(path)
    return Served(
        name=one.name,
        family=one.family,
        ours=one.ours,
        prefill_tokens_per_s=PROMPT_TOKENS
        / statistics.median(seconds for turn in rounds for seconds in turn["prefill_s"]),
        decode_tokens_per_s=1 / median_s,
        spread=(max(decode_s) - min(decode_s)) / median_s,
        size_bytes=size_bytes(path),
        directory_bytes=sum(files),
        peak_rss_bytes=max(turn["peak_rss_bytes"] for turn in rounds),
        weight_bytes_per_token=per_token,
        share_of_memory_floor=per_token / read_bytes_per_s / median_s if per_token else None,
        perplexity=perplexities.get(one.name),
        last_only=not is_onnx(path)
        or NUM_LOGITS in onnx_ir.load(path / "model.onnx").graph.initializers,
        rounds=tuple(rounds),
    )
