"""Tiny float models of several architectures, saved as they would be found."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

VOCABULARY = 96
SIZES: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
}

Make = Callable[..., Path]


def _build(kind: str, num_layers: int) -> Any:
    import transformers as hf

    from quantship.mlp.model import build_model

    sizes: dict[str, Any] = {**SIZES, "num_hidden_layers": num_layers}
    if kind.startswith("llama"):
        tied = kind == "llama"
        return hf.LlamaForCausalLM(
            hf.LlamaConfig(**sizes, num_key_value_heads=2, tie_word_embeddings=tied)
        )
    if kind == "gemma3":
        kinds = ["sliding_attention", "full_attention"] * num_layers
        return hf.Gemma3ForCausalLM(
            hf.Gemma3TextConfig(
                **sizes,
                num_key_value_heads=2,
                head_dim=16,
                sliding_window=4,
                layer_types=kinds[:num_layers],
            )
        )
    if kind == "gpt2":
        wide: dict[str, Any] = {"n_embd": 64, "n_layer": num_layers, "n_head": 4, "n_positions": 64}
        ends: dict[str, Any] = {"bos_token_id": 0, "eos_token_id": 0}
        return hf.GPT2LMHeadModel(hf.GPT2Config(vocab_size=VOCABULARY, **wide, **ends))
    if kind == "bert":
        return hf.BertForSequenceClassification(hf.BertConfig(**sizes))
    if kind == "albert":  # one block, which runs several times
        return hf.AlbertForMaskedLM(hf.AlbertConfig(**sizes, embedding_size=32))
    if kind == "deberta":  # whose blocks return pairs, and have to
        return hf.DebertaV2ForSequenceClassification(hf.DebertaV2Config(**sizes))
    assert kind == "mlp"
    return build_model((12, 32, 32, 5), seed=0)


@pytest.fixture(scope="session")
def float_dir(tmp_path_factory: pytest.TempPathFactory) -> Make:
    """Directory of a float model: kind, dtype, number of layers. Not to be written to."""
    root = tmp_path_factory.mktemp("float")

    @cache
    def make(kind: str, dtype: torch.dtype = torch.bfloat16, num_layers: int = 3) -> Path:
        path = root / f"{kind}-{dtype}-{num_layers}"
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(1)
            model = _build(kind, num_layers)
            for parameter in model.parameters():
                if parameter.ndim == 1:  # norms and biases away from 1 and 0
                    parameter.data.add_(torch.randn_like(parameter) * 0.1)
        model.to(dtype).save_pretrained(path)
        return path

    return make


def batch_of(length: int, seed: int) -> dict[str, Tensor]:
    """One calibration sequence."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(4, VOCABULARY, (1, length), generator=generator)
    return {"input_ids": ids, "labels": ids, "attention_mask": torch.ones_like(ids)}


@pytest.fixture(scope="session")
def batches() -> list[dict[str, Tensor]]:
    """Calibration sequences of several lengths, one of a single token."""
    return [batch_of(length, seed) for seed, length in enumerate((24, 9, 1))]


@pytest.fixture(autouse=True, scope="module")
def _one_thread(one_thread: None) -> None:
    """Everything in this room is small."""
