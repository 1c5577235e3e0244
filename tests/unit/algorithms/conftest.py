"""Blocks of tiny models of several architectures, with the calls that reach them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import nn

from quantship.algorithms.block import Block, Call
from quantship.quant.layers import formats
from quantship.quant.scheme import SCHEMES, Scheme

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
GROUPED: dict[str, Any] = {**SIZES, "num_key_value_heads": 2}
PLACES = {
    "bert": "bert.encoder.layer.1",
    "gpt2": "transformer.h.1",
    "opt": "model.decoder.layers.1",
}


def _build(name: str) -> PreTrainedModel:
    import transformers as tf

    gpt2: dict[str, Any] = {"vocab_size": VOCABULARY, "n_embd": 64, "n_layer": 2, "n_head": 4}
    opt: dict[str, Any] = {**SIZES, "ffn_dim": 128, "word_embed_proj_dim": 64}
    del opt["intermediate_size"]
    builders: dict[str, Callable[[], PreTrainedModel]] = {
        "llama": lambda: tf.LlamaForCausalLM(tf.LlamaConfig(**GROUPED)),
        "qwen3": lambda: tf.Qwen3ForCausalLM(tf.Qwen3Config(**GROUPED, head_dim=32)),
        "gemma3": lambda: tf.Gemma3ForCausalLM(tf.Gemma3TextConfig(**GROUPED, head_dim=16)),
        "phi3": lambda: tf.Phi3ForCausalLM(
            tf.Phi3Config(**GROUPED, pad_token_id=0, bos_token_id=0, eos_token_id=0)
        ),
        "gpt2": lambda: tf.GPT2LMHeadModel(
            tf.GPT2Config(**gpt2, n_positions=64, bos_token_id=0, eos_token_id=0)
        ),
        "opt": lambda: tf.OPTForCausalLM(tf.OPTConfig(**opt)),
        "bert": lambda: tf.BertForSequenceClassification(tf.BertConfig(**SIZES)),
    }
    return builders[name]()


def block_of(model: nn.Module, name: str, scheme: Scheme, num_calls: int = 3) -> Block:
    """A block of a model, with what reaches it when the model reads random tokens."""
    module = model.get_submodule(name)
    calls: list[Call] = []

    def note(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        calls.append(Call(args[0], args[1:], kwargs))

    handle = module.register_forward_pre_hook(note, with_kwargs=True)
    caches = {} if "bert" in name else {"use_cache": False}  # BERT has no cache
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for _ in range(num_calls):
            model(input_ids=torch.randint(4, VOCABULARY, (1, 12), generator=generator), **caches)
    handle.remove()
    inside = {
        layer: format
        for layer, format in formats(model, scheme).items()
        if layer.startswith(f"{name}.")
    }
    return Block(name, module, inside, calls)


@pytest.fixture(autouse=True, scope="module")
def _one_thread(one_thread: None) -> None:
    """Everything in this room is small."""


@pytest.fixture
def model_block() -> Callable[..., Block]:
    """Build the last block of a tiny model: ``model_block(architecture, scheme)``.

    Norms, biases and all else hold random numbers, none of them 0 or 1.
    """

    def build(name: str, scheme: str | Scheme = "w4a16-g32-linear", num_calls: int = 3) -> Block:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model = _build(name).eval().requires_grad_(False)
            for parameter in model.parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))
        found = SCHEMES[scheme] if isinstance(scheme, str) else scheme
        return block_of(model, PLACES.get(name, "model.layers.1"), found, num_calls)

    return build
