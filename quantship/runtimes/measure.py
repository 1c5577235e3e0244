"""Measure one model in a process of its own: ``python -m quantship.runtimes.measure``.

Reads a JSON object from standard input and writes one to standard output. A process for each
model keeps peak memory apart, and imports only the runtime that serves the model.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from quantship.hardware import peak_rss_bytes
from quantship.runtimes.base import open_runtime


def measure(
    path: Path,
    *,
    threads: int,
    batch_size: int,
    prompt_tokens: int,
    decode_tokens: int,
    vocabulary: int,
    seed: int,
) -> dict[str, Any]:
    """Prefill a synthetic prompt twice (the first time to warm up), then decode token by token.

    Returns:
        ``runtime``, ``prefill_s``, ``decode_s`` (one entry a token) and ``peak_rss_bytes``.
    """
    runtime = open_runtime(path, threads)
    generator = np.random.default_rng(seed)
    prompt = generator.integers(vocabulary, size=(batch_size, prompt_tokens), dtype=np.int64)
    tokens = generator.integers(vocabulary, size=(decode_tokens + 1, batch_size), dtype=np.int64)
    capacity = prompt_tokens + decode_tokens + 1
    runtime.prefill(prompt, capacity)
    runtime.decode(tokens[0])
    began = time.perf_counter()
    runtime.prefill(prompt, capacity)
    prefill_s = time.perf_counter() - began
    decode_s = []
    for token in tokens[1:]:
        began = time.perf_counter()
        runtime.decode(token)
        decode_s.append(time.perf_counter() - began)
    return {
        "runtime": runtime.name,
        "prefill_s": prefill_s,
        "decode_s": decode_s,
        "peak_rss_bytes": peak_rss_bytes(),
    }


def main() -> None:
    """Measure what standard input asks for."""
    request = json.load(sys.stdin)
    result = measure(Path(request.pop("path")), **request)
    json.dump(result, sys.stdout)


if __name__ == "__main__":
    main()
