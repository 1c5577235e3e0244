"""What evaluation and benchmark ask of a runtime. Shapes: B batch, T tokens, V vocabulary."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

RuntimeName = Literal["torch", "torchao", "onnxruntime"]
Tokens = NDArray[np.int64]
Logits = NDArray[np.float32]
Features = NDArray[np.float32]


class Runtime(Protocol):
    """A loaded model that can be asked for logits, at once or token by token."""

    name: RuntimeName

    def logits(self, input_ids: Tokens, attention_mask: Tokens) -> Logits:
        """Logits of every position: (B, T) and (B, T) of right-padded sequences to (B, T, V)."""
        ...

    def prefill(self, input_ids: Tokens, capacity: int) -> Logits:
        """Begin sequences of up to ``capacity`` tokens: (B, T) to the last position's (B, V)."""
        ...

    def decode(self, tokens: Tokens) -> Logits:
        """Append one token to each sequence: (B,) to (B, V)."""
        ...


@runtime_checkable
class Classifier(Protocol):
    """A loaded model that can be asked for the classes of samples."""

    def classify(self, features: Features) -> Logits:
        """Logits of each sample's class: (B, features) to (B, classes)."""
        ...


def is_onnx(path: Path) -> bool:
    """Whether a model directory holds an ONNX model rather than a Hugging Face checkpoint."""
    return (path / "model.onnx").is_file()


def open_runtime(path: Path, threads: int | None = None) -> Runtime:
    """Load the model of a directory on the runtime that serves it.

    Only the runtime that is needed is imported, so that its memory can be told apart.

    Args:
        path: Directory with a Hugging Face checkpoint, or with ``model.onnx``.
        threads: Threads to compute with; None: the runtime's own choice.
    """
    if is_onnx(path):
        from quantship.runtimes.ort import OrtRuntime

        return OrtRuntime(path, threads)
    from quantship.runtimes.pytorch import TorchRuntime

    return TorchRuntime(path, threads)


def greedy(
    runtime: Runtime, prompt: list[int], max_new_tokens: int, stop: frozenset[int] = frozenset()
) -> list[int]:
    """The most likely continuation, token by token, up to and without a stop token."""
    last = runtime.prefill(np.array([prompt], np.int64), len(prompt) + max_new_tokens)
    new: list[int] = []
    while True:
        token = int(last[0].argmax())
        if token in stop:
            return new
        new.append(token)
        if len(new) == max_new_tokens:
            return new
        last = runtime.decode(np.array([token], np.int64))
