"""Hugging Face checkpoints, float or torchao, in eager PyTorch on the CPU or the GPU."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from quantship.runtimes.base import Features, Logits, RuntimeName, Tokens

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class TorchRuntime:
    """A checkpoint behind transformers' own model classes."""

    name: RuntimeName

    def __init__(self, path: Path, threads: int | None = None) -> None:
        from quantship.quant.loading import load

        if threads is not None:
            torch.set_num_threads(threads)
        self._serve(load(path, device="cuda" if torch.cuda.is_available() else "cpu"))

    @classmethod
    def of(cls, model: PreTrainedModel) -> TorchRuntime:
        """A runtime of a model that is loaded already."""
        runtime = cls.__new__(cls)
        runtime._serve(model)
        return runtime

    def _serve(self, model: Any) -> None:
        self.name = "torchao" if hasattr(model.config, "quantization_config") else "torch"
        self._device = model.device
        self._model = model
        self._cache: Any = None

    @torch.inference_mode()
    def logits(self, input_ids: Tokens, attention_mask: Tokens) -> Logits:
        """See ``Runtime.logits``."""
        output = self._model(
            input_ids=self._tensor(input_ids),
            attention_mask=self._tensor(attention_mask),
            use_cache=False,
        )
        return self._array(output.logits)

    @torch.inference_mode()
    def classify(self, features: Features) -> Logits:
        """See ``Classifier.classify``."""
        return self._array(self._model(features=self._tensor(features)).logits)

    @torch.inference_mode()
    def prefill(self, input_ids: Tokens, capacity: int) -> Logits:
        """See ``Runtime.prefill``."""
        self._cache = None
        return self._step(input_ids)

    @torch.inference_mode()
    def decode(self, tokens: Tokens) -> Logits:
        """See ``Runtime.decode``."""
        return self._step(tokens[:, None])

    def _step(self, input_ids: Tokens) -> Logits:
        output = self._model(
            input_ids=self._tensor(input_ids),
            past_key_values=self._cache,
            use_cache=True,
            logits_to_keep=1,  # as generate() does
        )
        self._cache = output.past_key_values
        return self._array(output.logits[:, -1])

    def _tensor(self, array: Tokens | Features) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(self._device)

    @staticmethod
    def _array(tensor: torch.Tensor) -> Logits:
        array: Logits = tensor.float().cpu().numpy()
        return array
