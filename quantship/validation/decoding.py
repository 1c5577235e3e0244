"""What one decoder says of the sequences, all of it, so that the other may be loaded after it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from quantship.progress import track
from quantship.runtimes.base import Logits, Runtime, Tokens, open_runtime
from quantship.tasks.likelihood import log_softmax
from quantship.validation.agreement import worst_relative
from quantship.validation.subjects import Subject


@dataclass(frozen=True, eq=False)
class Observation:
    """What one model says.

    Args:
        logits: Of each sequence, (T, V).
        new_tokens: Greedy continuation of the prompt.
        cache: How far the logits of that are from those of reading it all at once.
    """

    logits: tuple[Logits, ...]
    new_tokens: tuple[int, ...]
    cache: float

    def perplexity(self, windows: tuple[Tokens, ...]) -> float:
        """Of the sequences, each token but the first given those before it."""
        nll, count = 0.0, 0
        for logits, window in zip(self.logits, windows, strict=True):
            picked = log_softmax(logits[:-1])[np.arange(len(window) - 1), window[1:]]
            nll, count = nll - float(picked.sum()), count + len(picked)
        return float(np.exp(nll / count))


def observe(
    subject: Subject, windows: tuple[Tokens, ...], prompt: Tokens, new_tokens: int
) -> Observation:
    """Load a decoder, let it read the sequences and continue the prompt, and let go of it."""
    runtime = _open(subject)
    logits = tuple(
        _read(runtime, window)
        for window in track(windows, f"{subject.label}: reading", len(windows))
    )
    last = runtime.prefill(prompt[None], len(prompt) + new_tokens)
    steps, new = [last[0]], [int(last[0].argmax())]
    for _ in track(range(new_tokens - 1), f"{subject.label}: continuing", new_tokens - 1):
        last = runtime.decode(np.array([new[-1]], np.int64))
        steps.append(last[0])
        new.append(int(last[0].argmax()))
    read = np.concatenate([prompt, np.array(new[:-1], np.int64)])
    at_once = _read(runtime, read)[len(prompt) - 1 :]
    return Observation(logits, tuple(new), worst_relative(np.stack(steps), at_once))


def _open(subject: Subject) -> Runtime:
    if subject.kind == "onnx":
        return open_runtime(subject.path)
    import torch

    from quantship.quant.loading import load
    from quantship.runtimes.pytorch import TorchRuntime

    # In float32 whatever the file holds: the arithmetic of an export.
    return TorchRuntime.of(load(subject.path, dtype=torch.float32))


def _read(runtime: Runtime, window: Tokens) -> Logits:
    batch = window[None]
    logits: Logits = runtime.logits(batch, np.ones_like(batch))[0]
    return logits
