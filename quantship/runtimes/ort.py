"""ONNX decoders on onnxruntime, with the KV cache in buffers that never leave their place.

The names are those of onnxruntime-genai: ``input_ids``, ``attention_mask``, where the graph has it
``position_ids``, ``past_key_values.N.key`` and ``present.N.key``; layers that convolve instead of
attending keep a state of fixed size, ``past.N.conv``.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

from quantship.runtimes.base import Device, Logits, RuntimeName, Tokens
from quantship.runtimes.ort_session import open_session

NUM_LOGITS = "num_logits_to_keep"
"""Optional input of decoders: of how many last positions to compute logits."""


class OrtRuntime:
    """A directory with ``model.onnx`` and ``genai_config.json``, on what it was made for.

    On a GPU the KV cache stays there from token to token; only a prompt's goes through main memory.
    """

    name: RuntimeName = "onnxruntime"
    device: Device
    pads: bool

    def __init__(self, path: Path, threads: int | None = None) -> None:
        self._session, self.device = open_session(path, threads)
        config = json.loads((path / "genai_config.json").read_text())
        # GroupQueryAttention appends in place when past and present are one buffer.
        self._in_place = bool(config["search"]["past_present_share_buffer"])
        decoder = config["model"]["decoder"]
        self._cache_shape = (decoder["num_key_value_heads"], decoder["head_size"])
        shapes = {entry.name: entry.shape for entry in self._session.get_inputs()}
        inputs = list(shapes)
        optional = [entry.name for entry in self._session.get_overridable_initializers()]
        self._asks_for_logits = NUM_LOGITS in optional
        self._wants_positions = "position_ids" in inputs
        self._past_names = [name for name in inputs if name.startswith("past_key_values.")]
        # Of a state, all but the batch is fixed.
        self._states = {
            name: shape[1:] for name, shape in shapes.items() if name.startswith("past.")
        }
        self._past: dict[str, ort.OrtValue] = {}
        self._lengths: Tokens = np.zeros(0, np.int64)
        # It also keeps a length a sequence; other attention takes all sequences to be of one.
        self.pads = self._in_place and not self._states

    def logits(self, input_ids: Tokens, attention_mask: Tokens) -> Logits:
        """See ``Runtime.logits``."""
        feeds: dict[str, Any] = {"input_ids": input_ids, "attention_mask": attention_mask}
        if self._wants_positions:
            feeds["position_ids"] = np.maximum(attention_mask.cumsum(axis=1) - 1, 0)
        feeds.update(self._beginning(len(input_ids), 0))
        logits: Logits = self._session.run(["logits"], feeds)[0]
        return logits

    def prefill(self, input_ids: Tokens, capacity: int, lengths: Tokens | None = None) -> Logits:
        """See ``Runtime.prefill``."""
        batch, longest = input_ids.shape
        if longest > capacity:
            raise ValueError(f"a prompt of {longest} tokens has no room in {capacity}")
        self._lengths = np.full(batch, longest) if lengths is None else lengths.astype(np.int64)
        assert self.pads or (self._lengths == longest).all()
        self._past = {}
        feeds = {**self._tokens(input_ids), **self._beginning(batch, 0)}
        if self._asks_for_logits:  # only `run` takes inputs that need not be given
            feeds[NUM_LOGITS] = np.array([longest + 1 - self._lengths.min()], np.int64)
        names = [*self._past_names, *self._states]
        logits, *made = self._session.run(["logits", *map(_present, names)], feeds)
        for name, value in zip(names, made, strict=True):
            if self._in_place and name not in self._states:
                room = np.zeros((*value.shape[:2], capacity, value.shape[3]), np.float32)
                room[:, :, :longest] = value
                value = room
            self._past[name] = ort.OrtValue.ortvalue_from_numpy(value, self.device)
        # Counted from the end, for some graphs give more positions than they are asked for.
        last: Logits = logits[np.arange(batch), self._lengths - 1 - longest]
        return last

    def decode(self, tokens: Tokens) -> Logits:
        """See ``Runtime.decode``."""
        self._lengths = self._lengths + 1
        return self._step(tokens[:, None])

    def keep(self, rows: Tokens) -> None:
        """See ``Runtime.keep``."""
        self._lengths = self._lengths[rows]
        for name, value in self._past.items():
            self._past[name] = ort.OrtValue.ortvalue_from_numpy(value.numpy()[rows], self.device)

    def _beginning(self, batch: int, length: int) -> dict[str, Logits]:
        """What a sequence begins with: caches with room for ``length`` tokens, and states."""
        heads, width = self._cache_shape
        shapes = {name: (heads, length, width) for name in self._past_names} | self._states
        return {name: np.zeros((batch, *shape), np.float32) for name, shape in shapes.items()}

    def _tokens(self, input_ids: Tokens) -> dict[str, Any]:
        """What is given beside the cache, where the last of these tokens end the sequences."""
        longest = int(self._lengths.max())
        new = input_ids.shape[1]
        feeds = {
            "input_ids": np.ascontiguousarray(input_ids),
            "attention_mask": (np.arange(longest) < self._lengths[:, None]).astype(np.int64),
        }
        if self._wants_positions:
            began = self._lengths - 1 if new == 1 else np.zeros_like(self._lengths)
            feeds["position_ids"] = began[:, None] + np.arange(new)
        return feeds

    def _step(self, input_ids: Tokens) -> Logits:
        binding = self._session.io_binding()
        for name, array in self._tokens(input_ids).items():
            binding.bind_cpu_input(name, array)
        binding.bind_output("logits")
        for name, value in self._past.items():
            binding.bind_ortvalue_input(name, value)
            present = _present(name)
            if self._in_place and name not in self._states:
                binding.bind_ortvalue_output(present, value)
            else:
                binding.bind_output(present, self.device)
        self._session.run_with_iobinding(binding)
        outputs = binding.get_outputs()
        for name, value in zip(list(self._past), outputs[1:], strict=True):
            if not self._in_place or name in self._states:
                self._past[name] = value
        logits: Logits = outputs[0].numpy()[:, -1]
        return logits


def _present(past: str) -> str:
    """Name of the output that the next step takes as an input."""
    return past.replace("past_key_values", "present").replace("past.", "present.")
