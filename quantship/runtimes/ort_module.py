"""ONNX models that take a batch and give an answer: encoders, classifiers, any module."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quantship.runtimes.base import Device, Inputs, Logits, RuntimeName
from quantship.runtimes.ort_session import open_session

Array = NDArray[Any]


class OrtModule:
    """A directory with ``model.onnx``, called as the module it was made of, where it should run."""

    name: RuntimeName = "onnxruntime"
    device: Device

    def __init__(self, path: Path | str, threads: int | None = None) -> None:
        self._session, self.device = open_session(Path(path), threads)
        self.inputs = tuple(entry.name for entry in self._session.get_inputs())
        self.outputs = tuple(entry.name for entry in self._session.get_outputs())

    def __call__(self, *arguments: Array, **named: Array) -> dict[str, Array]:
        """Outputs by name, for inputs in the order of ``inputs`` or by name.

        Raises:
            ValueError: An input is missing, or is one too many.
        """
        feeds = dict(zip(self.inputs, arguments, strict=False)) | named
        if len(arguments) > len(self.inputs) or feeds.keys() != set(self.inputs):
            raise ValueError(f"the model takes {', '.join(self.inputs)}")
        results = self._session.run(None, {name: np.asarray(one) for name, one in feeds.items()})
        return dict(zip(self.outputs, results, strict=True))

    def classify(self, inputs: Inputs) -> Logits:
        """See ``Classifier.classify``; what the graph has no input for is left out."""
        given = {name: array for name, array in inputs.items() if name in self.inputs}
        logits: Logits = self(**given)["logits"]
        return logits
