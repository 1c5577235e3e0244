"""Measure one model in a process of its own: ``python -m quantship.runtimes.measure``.

Reads a JSON object from standard input and writes one to standard output. A process for each
model keeps peak memory apart, and imports only the runtime that serves the model.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from quantship import stopping
from quantship.hardware import peak_gpu_bytes, peak_rss_bytes
from quantship.runtimes.base import Classifier, Runtime, open_classifier, open_runtime

PROMPTS = 3
"""Times that the prompt is timed: one alone is at the mercy of a moment."""


def measure(
    runtime: Runtime,
    *,
    batch_size: int,
    prompt_tokens: int,
    decode_tokens: int,
    vocabulary: int,
    seed: int,
) -> dict[str, Any]:
    """Prefill a synthetic prompt a few times, then decode token by token after the last.

    Both are done once before, to warm up.

    Returns:
        ``runtime``, ``device``, ``prefill_s`` (one entry a prompt), ``decode_s`` (one a token),
        ``peak_rss_bytes`` and ``peak_gpu_bytes``, which is None where it is not known.
    """
    generator = np.random.default_rng(seed)
    prompt = generator.integers(vocabulary, size=(batch_size, prompt_tokens), dtype=np.int64)
    tokens = generator.integers(vocabulary, size=(decode_tokens + 1, batch_size), dtype=np.int64)
    capacity = prompt_tokens + decode_tokens + 1
    runtime.prefill(prompt, capacity)
    runtime.decode(tokens[0])
    prefill_s = [_seconds(runtime.prefill, prompt, capacity) for _ in range(PROMPTS)]
    decode_s = [_seconds(runtime.decode, token) for token in tokens[1:]]
    return _result(runtime, prefill_s, decode_s)


def measure_classifier(
    classifier: Classifier,
    *,
    batch_size: int,
    prompt_tokens: int,
    decode_tokens: int,
    features: int,
    seed: int,
) -> dict[str, Any]:
    """Classify as many samples as a prompt has tokens at once, then batch after batch.

    A sample counts as one token: the first is the throughput, the second the latency.

    Returns:
        As ``measure``.
    """
    generator = np.random.default_rng(seed)
    many = generator.random((batch_size * prompt_tokens, features), dtype=np.float32)
    few = generator.random((decode_tokens + 1, batch_size, features), dtype=np.float32)
    at_once = {"features": many}
    prefill_s = [_seconds(classifier.classify, at_once) for _ in range(1 + PROMPTS)][1:]
    decode_s = [_seconds(classifier.classify, {"features": samples}) for samples in few][1:]
    return _result(classifier, prefill_s, decode_s)


def measure_reader(
    classifier: Classifier,
    *,
    batch_size: int,
    prompt_tokens: int,
    decode_tokens: int,
    vocabulary: int,
    segments: bool,
    seed: int,
) -> dict[str, Any]:
    """Classify texts as long as a prompt, batch after batch, as many as there are decode tokens.

    A pass reads all of its texts: its tokens are the throughput, its time the latency.

    Returns:
        As ``measure``; both lists are of the same passes.
    """
    generator = np.random.default_rng(seed)
    shape = (batch_size, prompt_tokens)
    batches = generator.integers(vocabulary, size=(decode_tokens + 1, *shape), dtype=np.int64)
    mask, one_text = np.ones(shape, np.int64), np.zeros(shape, np.int64)
    seconds = []
    for ids in batches:
        inputs = {"input_ids": ids, "attention_mask": mask}
        inputs |= {"token_type_ids": one_text} if segments else {}
        seconds.append(_seconds(classifier.classify, inputs))
    return _result(classifier, seconds[1:], seconds[1:])


def _result(
    runtime: Runtime | Classifier, prefill_s: list[float], decode_s: list[float]
) -> dict[str, Any]:
    return {
        "runtime": runtime.name,
        "device": runtime.device,
        "prefill_s": prefill_s,
        "decode_s": decode_s,
        "peak_rss_bytes": peak_rss_bytes(),
        "peak_gpu_bytes": peak_gpu_bytes() if runtime.device == "cuda" else None,
    }


def _seconds(function: Callable[..., object], *arguments: object) -> float:
    _wait()
    began = time.perf_counter()
    function(*arguments)
    _wait()
    return time.perf_counter() - began


def _wait() -> None:
    """Let a GPU finish what it was given; PyTorch is not imported for it."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.synchronize()


def main() -> None:
    """Measure what standard input asks for."""
    stopping.end_with_parent()
    request = json.load(sys.stdin)
    where = Path(request.pop("path")), request.pop("threads"), request.pop("precision", "stored")
    compiled = request.pop("compiled", False)
    if "features" in request:
        result = measure_classifier(open_classifier(*where), **request)
    elif "segments" in request:
        result = measure_reader(open_classifier(*where), **request)
    else:
        result = measure(open_runtime(*where, compiled=compiled), **request)
    json.dump(result, sys.stdout)


if __name__ == "__main__":
    main()
