"""Hugging Face checkpoints, float or torchao, in eager PyTorch on the CPU or the GPU."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from quantship import hardware
from quantship.errors import QuantshipError
from quantship.quant import gpu_kernels
from quantship.runtimes.base import Device, Inputs, Logits, Precision, RuntimeName, Tokens

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class TorchRuntime:
    """A checkpoint behind transformers' own model classes."""

    name: RuntimeName
    device: Device
    pads: bool

    def __init__(
        self, path: Path, threads: int | None = None, precision: Precision = "stored"
    ) -> None:
        from quantship.quant.loading import load

        if threads is not None:
            torch.set_num_threads(threads)
        device = "cuda" if torch.cuda.is_available() else "cpu"
        bfloat16 = precision == "bfloat16" or (
            precision == "auto"
            and torch.cuda.is_available()
            and torch.cuda.is_bf16_supported(including_emulation=False)
        )
        with explained():
            self._serve(load(path, device=device, bfloat16=bfloat16))

    @classmethod
    def of(cls, model: PreTrainedModel) -> TorchRuntime:
        """A runtime of a model that is loaded already."""
        runtime = cls.__new__(cls)
        runtime._serve(model)
        return runtime

    def _serve(self, model: Any) -> None:
        self.name = "torchao" if hasattr(model.config, "quantization_config") else "torch"
        self._device = model.device
        self.device = "cuda" if self._device.type == "cuda" else "cpu"
        self._model = model
        self._cache: Any = None
        self._mask: torch.Tensor | None = None
        self.pads = _pads(model)

    @torch.inference_mode()
    def logits(self, input_ids: Tokens, attention_mask: Tokens) -> Logits:
        """See ``Runtime.logits``."""
        with explained():
            output = self._model(
                input_ids=self._tensor(input_ids),
                attention_mask=self._tensor(attention_mask),
                use_cache=False,
            )
            return self._array(output.logits)

    @torch.inference_mode()
    def classify(self, inputs: Inputs) -> Logits:
        """See ``Classifier.classify``."""
        given = {name: self._tensor(array) for name, array in inputs.items()}
        with explained():
            return self._array(self._model(**given).logits)

    @torch.inference_mode()
    def prefill(self, input_ids: Tokens, capacity: int, lengths: Tokens | None = None) -> Logits:
        """See ``Runtime.prefill``."""
        self._cache = self._mask = None
        if lengths is None or (lengths == input_ids.shape[1]).all():
            return self._step(input_ids)
        # On the left, so that tokens which follow each other lie beside each other: attention that
        # looks back a few places only counts places.
        input_ids, mask = _padded_on_the_left(input_ids, lengths)
        self._mask = self._tensor(mask)
        return self._step(input_ids)

    @torch.inference_mode()
    def decode(self, tokens: Tokens) -> Logits:
        """See ``Runtime.decode``."""
        if self._mask is not None:
            self._mask = torch.cat([self._mask, self._mask.new_ones(len(tokens), 1)], dim=1)
        return self._step(tokens[:, None])

    @torch.inference_mode()
    def keep(self, rows: Tokens) -> None:
        """See ``Runtime.keep``."""
        kept = self._tensor(rows)
        self._cache.reorder_cache(kept)
        if self._mask is not None:
            self._mask = self._mask[kept]

    def _step(self, input_ids: Tokens) -> Logits:
        padded: dict[str, torch.Tensor] = {}
        if self._mask is not None:
            positions = (self._mask.cumsum(dim=1) - 1).clamp(min=0)
            padded["attention_mask"] = self._mask
            padded["position_ids"] = positions[:, -input_ids.shape[1] :]
        with explained():
            output = self._model(
                input_ids=self._tensor(input_ids),
                past_key_values=self._cache,
                use_cache=True,
                logits_to_keep=1,  # as generate() does
                **padded,
            )
            self._cache = output.past_key_values
            return self._array(output.logits[:, -1])

    def _tensor(self, array: NDArray[Any]) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(self._device)

    @staticmethod
    def _array(tensor: torch.Tensor) -> Logits:
        array: Logits = tensor.float().cpu().numpy()
        return array


@contextmanager
def explained() -> Iterator[None]:
    """Tell of a kernel that the GPU lacks in words, with a remedy.

    Raises:
        QuantshipError: It lacks one.
    """
    try:
        yield
    except Exception as error:
        gpu = hardware.gpu()
        words = None if gpu is None else gpu_kernels.missing(error, gpu)
        if words is None:
            raise
        raise QuantshipError(words) from error


def _pads(model: Any) -> bool:
    """Whether a model's layers look at nothing but what a mask lets them, at places it is told."""
    layers = set(getattr(model.config.get_text_config(), "layer_types", None) or ())
    return (
        "position_ids" in inspect.signature(model.forward).parameters
        and not getattr(model, "_is_stateful", False)
        and layers <= {"full_attention", "sliding_attention"}
    )


def _padded_on_the_left(input_ids: Tokens, lengths: Tokens) -> tuple[Tokens, Tokens]:
    """Prompts (B, T) that were padded on the right, and their mask."""
    longest = input_ids.shape[1]
    places = np.arange(longest) - (longest - lengths)[:, None]
    moved = np.take_along_axis(input_ids, np.maximum(places, 0), axis=1)
    return moved, (places >= 0).astype(np.int64)
