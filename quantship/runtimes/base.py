"""What evaluation and benchmark ask of a runtime. Shapes: B batch, T tokens, V vocabulary."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from quantship.runtimes.kinds import read_kind

RuntimeName = Literal["torch", "torchao", "onnxruntime", "openvino"]
Precision = Literal["stored", "auto", "bfloat16"]
"""Arithmetic of floats: what the file says; bfloat16 on a GPU that has it, else what the file says;
or bfloat16."""
Device = Literal["cpu", "cuda"]
Tokens = NDArray[np.int64]
Logits = NDArray[np.float32]
Inputs = Mapping[str, NDArray[Any]]
"""What a model is called with, by name."""


class Runtime(Protocol):
    """A loaded model that can be asked for logits, at once or token by token."""

    name: RuntimeName
    device: Device
    """Where it computes."""
    pads: bool
    """Whether ``prefill`` takes prompts of different lengths."""

    def logits(self, input_ids: Tokens, attention_mask: Tokens) -> Logits:
        """Logits of every position: (B, T) and (B, T) of right-padded sequences to (B, T, V)."""
        ...

    def prefill(self, input_ids: Tokens, capacity: int, lengths: Tokens | None = None) -> Logits:
        """Begin sequences of up to ``capacity`` tokens: (B, T) to the last position's (B, V).

        Args:
            input_ids: The prompts, padded on the right where ``lengths`` are given.
            capacity: Most tokens of a sequence, its prompt among them.
            lengths: (B,) tokens of each prompt, the largest T; None: T for all. Lengths that differ
                are for runtimes that ``pads``.
        """
        ...

    def decode(self, tokens: Tokens) -> Logits:
        """Append one token to each sequence: (B,) to (B, V)."""
        ...

    def keep(self, rows: Tokens) -> None:
        """Go on with these of the sequences only, in this order."""
        ...


@runtime_checkable
class Classifier(Protocol):
    """A loaded model that can be asked for the classes of samples or of texts."""

    name: RuntimeName
    device: Device
    """Where it computes."""

    def classify(self, inputs: Inputs) -> Logits:
        """Logits of the classes (B, classes) of a batch, as ``data.prepare.collate`` makes it.

        Of samples ``features`` (B, features); of texts ``input_ids`` and ``attention_mask`` (B, T),
        right-padded, and ``token_type_ids`` where the model has them.
        """
        ...


def is_onnx(path: Path) -> bool:
    """Whether a model directory holds an ONNX model rather than a Hugging Face checkpoint."""
    return (path / "model.onnx").is_file()


def is_openvino(path: Path) -> bool:
    """Whether a model directory holds OpenVINO IR."""
    return (path / "openvino_model.xml").is_file()


def open_runtime(
    path: Path,
    threads: int | None = None,
    precision: Precision = "stored",
    *,
    compiled: bool = False,
) -> Runtime:
    """Load the model of a directory that reads text on the runtime that serves it.

    Only the runtime that is needed is imported, so that its memory can be told apart.

    Args:
        path: Directory with a Hugging Face checkpoint, ``model.onnx`` or ``openvino_model.xml``.
        threads: Threads to compute with; None: the runtime's own choice.
        precision: Arithmetic of a checkpoint's floats.
        compiled: Serve a checkpoint under torch.compile.
    """
    if is_onnx(path):
        from quantship.runtimes.ort import OrtRuntime

        return OrtRuntime(path, threads)
    if is_openvino(path):
        from quantship.runtimes.openvino import OpenVinoRuntime

        return OpenVinoRuntime(path, threads)
    if compiled:
        from quantship.runtimes.compiled import CompiledRuntime

        return CompiledRuntime(path, threads, precision)
    from quantship.runtimes.pytorch import TorchRuntime

    return TorchRuntime(path, threads, precision)


def open_classifier(
    path: Path, threads: int | None = None, precision: Precision = "stored"
) -> Classifier:
    """Load the model of a directory that classifies on the runtime that serves it.

    Args:
        path: See ``open_runtime``.
        threads: See ``open_runtime``.
        precision: See ``open_runtime``.
    """
    if is_onnx(path):
        from quantship.runtimes.ort_module import OrtModule

        return OrtModule(path, threads)
    from quantship.runtimes.pytorch import TorchRuntime

    return TorchRuntime(path, threads, precision)


def classifies(path: Path) -> bool:
    """Whether a model directory holds a model that tells classes rather than tokens."""
    return read_kind(path) != "language"


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
