"""One turn of one model of the serving benchmark, in a process of its own.

Reads a JSON object from standard input and writes one to standard output: speed and memory, or,
where the request holds ``windows`` of tokens, the perplexity on these.
"""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np

from quantship.runtimes.base import Runtime, open_runtime
from quantship.runtimes.measure import measure


def serve(path: Path, threads: int, *, all_logits: bool) -> Any:
    """The runtime of a model directory."""
    gguf = path / "model.gguf"
    if not gguf.exists():
        return open_runtime(path, threads)
    from llama_runtime import LlamaRuntime

    return LlamaRuntime(gguf, threads, all_logits=all_logits)


def perplexity(runtime: Runtime, windows: list[list[int]]) -> float:
    """exp of the mean loss in nats of all tokens but the first of each window."""
    losses = []
    for window in windows:
        tokens = np.array([window], np.int64)
        logits = runtime.logits(tokens, np.ones_like(tokens))[0, :-1].astype(np.float64)
        top = logits.max(axis=-1, keepdims=True)
        normal = top[:, 0] + np.log(np.exp(logits - top).sum(axis=-1))
        losses.append(normal - logits[np.arange(len(window) - 1), window[1:]])
    return math.exp(np.concatenate(losses).mean())


def main(request: dict[str, Any]) -> dict[str, Any]:
    """What the request asks for."""
    windows = request.pop("windows", None)
    path, threads = Path(request.pop("path")), request.pop("threads")
    runtime = serve(path, threads, all_logits=windows is not None)
    if windows is not None:
        return {"perplexity": perplexity(runtime, windows)}
    return measure(runtime, **request)


if __name__ == "__main__":
    json.dump(main(json.load(sys.stdin)), sys.stdout)
