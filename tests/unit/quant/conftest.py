"""Tiny models of several architectures, a fresh one for each test."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest
import torch

if TYPE_CHECKING:
    from transformers import PreTrainedModel

VOCABULARY = 96
SIZES: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
}


def _llama(*, tied: bool) -> PreTrainedModel:
    from transformers import LlamaConfig, LlamaForCausalLM

    return LlamaForCausalLM(LlamaConfig(**SIZES, num_key_value_heads=2, tie_word_embeddings=tied))


def _gpt2() -> PreTrainedModel:
    from transformers import GPT2Config, GPT2LMHeadModel

    sizes: dict[str, Any] = {"vocab_size": VOCABULARY, "n_embd": 64, "n_layer": 2, "n_head": 4}
    ends: dict[str, Any] = {"bos_token_id": 0, "eos_token_id": 0}
    dropout: dict[str, Any] = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
    return GPT2LMHeadModel(GPT2Config(**sizes, n_positions=64, **ends, **dropout))


def _bert() -> PreTrainedModel:
    from transformers import BertConfig, BertForSequenceClassification

    dropout: dict[str, Any] = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    return BertForSequenceClassification(BertConfig(**SIZES, **dropout))


def _gemma3() -> PreTrainedModel:
    from transformers import Gemma3ForCausalLM, Gemma3TextConfig

    config = Gemma3TextConfig(**SIZES, num_key_value_heads=2, head_dim=16)
    return Gemma3ForCausalLM(config)


BUILDERS: dict[str, Callable[[], PreTrainedModel]] = {
    "tied": lambda: _llama(tied=True),
    "untied": lambda: _llama(tied=False),
    "gpt2": _gpt2,
    "bert": _bert,
    "gemma3": _gemma3,
}


@pytest.fixture
def build() -> Callable[[str], PreTrainedModel]:
    """Build a model by name: ``tied`` and ``untied`` (Llama), ``gpt2``, ``bert``, ``gemma3``."""

    def build(name: str) -> PreTrainedModel:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model = BUILDERS[name]()
        model.eval()
        return model

    return build


@pytest.fixture
def tied(build: Callable[[str], PreTrainedModel]) -> PreTrainedModel:
    """A Llama whose head is its embedding."""
    return build("tied")


@pytest.fixture
def untied(build: Callable[[str], PreTrainedModel]) -> PreTrainedModel:
    """A Llama with a head of its own."""
    return build("untied")


@pytest.fixture
def tokens() -> torch.Tensor:
    """Two sequences of twelve tokens, without any special ones."""
    return torch.randint(4, VOCABULARY, (2, 12), generator=torch.Generator().manual_seed(0))
