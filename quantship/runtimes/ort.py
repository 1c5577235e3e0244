"""ONNX decoders on onnxruntime, with the KV cache in buffers that never leave their place.

The names are those of onnxruntime-genai: ``input_ids``, ``attention_mask``, where the graph has it
``position_ids``, ``past_key_values.N.key`` and ``present.N.key``.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnxruntime as ort

from quantship.runtimes.base import Logits, RuntimeName, Tokens


class OrtRuntime:
    """A directory with ``model.onnx`` and ``genai_config.json`` on the CPU."""

    name: RuntimeName = "onnxruntime"

    def __init__(self, path: Path, threads: int | None = None) -> None:
        options = ort.SessionOptions()
        options.log_severity_level = 3
        if threads is not None:
            options.intra_op_num_threads = threads
        self._session = ort.InferenceSession(
            path / "model.onnx", options, providers=["CPUExecutionProvider"]
        )
        config = json.loads((path / "genai_config.json").read_text())
        # GroupQueryAttention appends in place when past and present are one buffer.
        self._in_place = bool(config["search"]["past_present_share_buffer"])
        decoder = config["model"]["decoder"]
        self._cache_shape = (decoder["num_key_value_heads"], decoder["head_size"])
        inputs = [entry.name for entry in self._session.get_inputs()]
        self._wants_positions = "position_ids" in inputs
        self._past_names = [name for name in inputs if name.startswith("past_key_values.")]
        self._past: dict[str, ort.OrtValue] = {}
        self._length = 0

    def logits(self, input_ids: Tokens, attention_mask: Tokens) -> Logits:
        """See ``Runtime.logits``."""
        feeds = {"input_ids": input_ids, "attention_mask": attention_mask}
        if self._wants_positions:
            feeds["position_ids"] = np.maximum(attention_mask.cumsum(axis=1) - 1, 0)
        feeds.update({name: self._empty_cache(len(input_ids), 0) for name in self._past_names})
        logits: Logits = self._session.run(["logits"], feeds)[0]
        return logits

    def prefill(self, input_ids: Tokens, capacity: int) -> Logits:
        """See ``Runtime.prefill``."""
        self._length = 0
        length = capacity if self._in_place else 0
        self._past = {
            name: ort.OrtValue.ortvalue_from_numpy(self._empty_cache(len(input_ids), length))
            for name in self._past_names
        }
        return self._step(input_ids)

    def decode(self, tokens: Tokens) -> Logits:
        """See ``Runtime.decode``."""
        return self._step(tokens[:, None])

    def _empty_cache(self, batch: int, length: int) -> Logits:
        heads, width = self._cache_shape
        return np.zeros((batch, heads, length, width), np.float32)

    def _step(self, input_ids: Tokens) -> Logits:
        batch, new = input_ids.shape
        total = self._length + new
        binding = self._session.io_binding()
        binding.bind_cpu_input("input_ids", np.ascontiguousarray(input_ids))
        binding.bind_cpu_input("attention_mask", np.ones((batch, total), np.int64))
        if self._wants_positions:
            positions = np.tile(np.arange(self._length, total, dtype=np.int64), (batch, 1))
            binding.bind_cpu_input("position_ids", positions)
        binding.bind_output("logits")
        for name, value in self._past.items():
            binding.bind_ortvalue_input(name, value)
            present = name.replace("past_key_values", "present")
            if self._in_place:
                binding.bind_ortvalue_output(present, value)
            else:
                binding.bind_output(present)
        self._session.run_with_iobinding(binding)
        outputs = binding.get_outputs()
        if not self._in_place:
            self._past = dict(zip(self._past, outputs[1:], strict=True))
        self._length = total
        logits: Logits = outputs[0].numpy()[:, -1]
        return logits
