"""Hugging Face decoders under torch.compile, with a KV cache of fixed size, as they are served.

What integer weights save on a GPU is memory traffic, and that shows only where making floats of
codes is fused into the product: eager PyTorch writes the floats out first.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from quantship.quant.gpu_kernels import INT_MM_ROWS
from quantship.runtimes.base import Logits, Tokens
from quantship.runtimes.pytorch import TorchRuntime, explained

ON_GPU = {"triton.cudagraphs": True, "coordinate_descent_tuning": True}
"""Inductor's options, those of gpt-fast: replay a token's kernels as one graph, and fuse the codes
into products with one row."""


class CompiledRuntime(TorchRuntime):
    """A checkpoint whose forward pass is compiled for the shapes that it is called with."""

    backend = "inductor"
    """torch.compile's."""

    def _serve(self, model: Any) -> None:
        super()._serve(model)
        self.pads = False
        self._room = 0
        self._static: Any = None
        is_gpu = self._device.type == "cuda"
        if is_gpu:
            give_enough_rows(model)
        options: Any = dict(ON_GPU) if is_gpu else None
        self._call = torch.compile(
            self._forward, backend=self.backend, dynamic=False, options=options
        )

    @torch.inference_mode()
    def prefill(self, input_ids: Tokens, capacity: int, lengths: Tokens | None = None) -> Logits:
        """See ``Runtime.prefill``."""
        assert lengths is None or (lengths == input_ids.shape[1]).all()
        self._cache = self._empty(len(input_ids), capacity)
        return self._step(input_ids)

    @torch.inference_mode()
    def keep(self, rows: Tokens) -> None:
        """See ``Runtime.keep``; another number of rows is another cache, and compiled anew."""
        kept = self._tensor(rows)
        before = self._cache
        self._cache = self._empty(len(rows), self._room)
        for layer, old in zip(self._cache.layers, before.layers, strict=True):
            layer.keys.copy_(old.keys[kept])
            layer.values.copy_(old.values[kept])
            layer.cumulative_length.copy_(old.cumulative_length)

    def _empty(self, batch: int, capacity: int) -> Any:
        """A cache with nothing in it; the one of the last prompt where its shape is the same."""
        from transformers import StaticCache

        reused = self._static
        if reused is not None and (self._room, reused.layers[0].batch_size) == (capacity, batch):
            reused.reset()
            return reused
        config = self._model.config.get_text_config(decoder=True)
        made = StaticCache(config=config, max_cache_len=capacity)
        heads = config.num_attention_heads
        num_kv = getattr(config, "num_key_value_heads", None) or heads
        width = getattr(config, "head_dim", None) or config.hidden_size // heads
        made.early_initialization(batch, num_kv, width, self._model.dtype, self._device)
        self._room, self._static = capacity, made
        return made

    def _forward(self, input_ids: Tensor, cache: Any) -> Tensor:
        output = self._model(
            input_ids=input_ids, past_key_values=cache, use_cache=True, logits_to_keep=1
        )
        logits: Tensor = output.logits[:, -1]
        return logits

    def _step(self, input_ids: Tokens) -> Logits:
        with explained():
            return self._array(self._call(self._tensor(input_ids), self._cache))


class EnoughRows(nn.Module):
    """A layer that is never given fewer rows than the integer kernel takes.

    Rows of zeros change nothing: ranges of inputs hold zero always, or are each row's own.
    """

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, input: Tensor) -> Tensor:
        """Float in, float out: (..., I) to (..., O)."""
        rows = input.reshape(-1, input.shape[-1])
        missing = INT_MM_ROWS - rows.shape[0]
        if missing <= 0:
            output: Tensor = self.layer(input)
            return output
        output = self.layer(F.pad(rows, (0, 0, 0, missing)))[: rows.shape[0]]
        return output.reshape(*input.shape[:-1], output.shape[-1])


def give_enough_rows(model: nn.Module) -> None:
    """Let every layer of a model that multiplies codes by codes have enough rows, in place."""
    from torchao.quantization import Int8Tensor

    for name, module in list(model.named_modules()):
        weight: Any = module.weight.data if isinstance(module, nn.Linear) else None
        if isinstance(weight, Int8Tensor) and weight.act_quant_kwargs is not None:
            model.set_submodule(name, EnoughRows(module))
