"""ONNX models that take a batch and give an answer: encoders, classifiers, any module."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from quantship.runtimes import built_for
from quantship.runtimes.base import Inputs, Logits, RuntimeName

Array = NDArray[Any]


class OrtModule:
    """A directory with ``model.onnx`` on the CPU, called as the module that it was made of."""

    name: RuntimeName = "onnxruntime"

    def __init__(self, path: Path | str, threads: int | None = None) -> None:
        options = ort.SessionOptions()
        options.log_severity_level = 3
        if threads is not None:
            options.intra_op_num_threads = threads
        self._session = ort.InferenceSession(
            Path(path) / "model.onnx", options, providers=["CPUExecutionProvider"]
        )
        built_for.heed(self._session.get_modelmeta().custom_metadata_map, Path(path))
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
