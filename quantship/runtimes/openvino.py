"""OpenVINO decoders on the CPU, with the KV cache in variables of the compiled model.

Arithmetic is what the file says and no less: float32 between layers and in the cache, where the
plugin's own choice would be bfloat16 on CPUs that have it. Whether the inputs of layers with
integer weights become integers too, the file says (``DYNAMIC_QUANTIZATION_GROUP_SIZE``).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import openvino

from quantship.runtimes.base import Device, Logits, RuntimeName, Tokens

MODEL_FILE = "openvino_model.xml"
EXACT = {"INFERENCE_PRECISION_HINT": "f32", "KV_CACHE_PRECISION": "f32"}


class OpenVinoRuntime:
    """A directory with ``openvino_model.xml``: stateful, with ``beam_idx`` as an input."""

    name: RuntimeName = "openvino"
    device: Device = "cpu"
    pads = False

    def __init__(self, path: Path, threads: int | None = None) -> None:
        options: dict[str, Any] = {**EXACT, "PERFORMANCE_HINT": "LATENCY"}
        if threads is not None:
            options["INFERENCE_NUM_THREADS"] = threads
        compiled = openvino.Core().compile_model(path / MODEL_FILE, "CPU", options)
        self._names = {input.any_name for input in compiled.inputs}
        self._request = compiled.create_infer_request()
        self._length = 0
        self._rows = np.zeros(0, np.int32)

    def logits(self, input_ids: Tokens, attention_mask: Tokens) -> Logits:
        """See ``Runtime.logits``."""
        self._request.reset_state()
        positions = np.maximum(attention_mask.cumsum(axis=1) - 1, 0)
        self._rows = np.arange(len(input_ids), dtype=np.int32)
        return self._infer(input_ids, attention_mask, positions)

    def prefill(self, input_ids: Tokens, capacity: int, lengths: Tokens | None = None) -> Logits:
        """See ``Runtime.prefill``."""
        assert lengths is None or (lengths == input_ids.shape[1]).all()
        self._request.reset_state()
        self._length = 0
        self._rows = np.arange(len(input_ids), dtype=np.int32)
        return self._step(input_ids)

    def decode(self, tokens: Tokens) -> Logits:
        """See ``Runtime.decode``."""
        return self._step(tokens[:, None])

    def keep(self, rows: Tokens) -> None:
        """See ``Runtime.keep``."""
        self._rows = self._rows[rows]  # the model reorders its variables at the next token

    def _step(self, input_ids: Tokens) -> Logits:
        batch, new = input_ids.shape
        total = self._length + new
        positions = np.tile(np.arange(self._length, total, dtype=np.int64), (batch, 1))
        logits = self._infer(input_ids, np.ones((batch, total), np.int64), positions)
        self._length = total
        return logits[:, -1]

    def _infer(self, input_ids: Tokens, attention_mask: Tokens, positions: Tokens) -> Logits:
        feeds = {
            "input_ids": input_ids,
            "attention_mask": attention_mask,
            "position_ids": positions,
            "beam_idx": self._rows,
        }
        given = {name: np.ascontiguousarray(feeds[name]) for name in self._names}
        self._request.infer(given)
        self._rows = np.arange(len(input_ids), dtype=np.int32)
        logits: Logits = self._request.get_output_tensor(0).data.copy()
        return logits
