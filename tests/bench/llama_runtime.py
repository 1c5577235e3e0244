"""A GGUF file on llama.cpp, behind the protocol that quantship's own runtimes have."""

from __future__ import annotations

import ctypes
from pathlib import Path

import llama_cpp
import numpy as np

from quantship.runtimes.base import Logits, Tokens

CONTEXT = 512


class LlamaRuntime:
    """One sequence at a time, with llama-cpp-python's defaults.

    Args:
        path: GGUF file.
        threads: Threads of prompt and of decoding.
        all_logits: Compute every position's logits; else the last one's, as users do.
    """

    name = "llama.cpp"

    def __init__(self, path: Path, threads: int, *, all_logits: bool = False) -> None:
        self._model = llama_cpp.Llama(
            str(path),
            n_ctx=CONTEXT,
            n_batch=CONTEXT,
            n_threads=threads,
            n_threads_batch=threads,
            logits_all=all_logits,
            verbose=False,
        )

    def logits(self, input_ids: Tokens, attention_mask: Tokens) -> Logits:
        """See ``Runtime.logits``: of one sequence without padding."""
        assert attention_mask.all()
        (tokens,) = input_ids
        self._model.reset()
        self._model.eval(tokens.tolist())
        return self._model.scores[None, : len(tokens)].copy()

    def prefill(self, input_ids: Tokens, capacity: int) -> Logits:
        """See ``Runtime.prefill``."""
        assert capacity <= CONTEXT
        self._model.reset()
        return self._step(input_ids)

    def decode(self, tokens: Tokens) -> Logits:
        """See ``Runtime.decode``."""
        return self._step(tokens[:, None])

    def _step(self, input_ids: Tokens) -> Logits:
        (tokens,) = input_ids
        self._model.eval(tokens.tolist())
        last = llama_cpp.llama_get_logits_ith(self._model.ctx, -1)
        size = self._model.n_vocab()
        array = np.ctypeslib.as_array(ctypes.cast(last, ctypes.POINTER(ctypes.c_float)), (size,))
        return array[None].copy()


def quantize(source: Path, out: Path, kind: str) -> None:
    """Quantize a float GGUF file as ``llama-quantize`` does by default, to ``Q8_0`` or the like."""
    parameters = llama_cpp.llama_model_quantize_default_params()
    parameters.ftype = getattr(llama_cpp, f"LLAMA_FTYPE_MOSTLY_{kind}")
    failed = llama_cpp.llama_model_quantize(
        str(source).encode(), str(out).encode(), ctypes.byref(parameters)
    )
    if failed:
        raise RuntimeError(f"llama.cpp could not quantize {source} to {kind}")


def bytes_per_token(path: Path) -> int:
    """Bytes of weights that one decoded token reads: all, but for an embedding of its own."""
    from gguf import GGUFReader

    sizes = {tensor.name: int(tensor.n_bytes) for tensor in GGUFReader(path).tensors}
    return sum(sizes.values()) - (sizes["token_embd.weight"] if "output.weight" in sizes else 0)
