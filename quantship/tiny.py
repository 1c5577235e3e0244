"""A small Llama-shaped model and a byte-level tokenizer, built in code: nothing is downloaded."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from tokenizers import Tokenizer, decoders, models, pre_tokenizers

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

PAD, END, START_ROLE, END_ROLE = "<|pad|>", "<|end|>", "<|im_start|>", "<|im_end|>"
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


class Dimensions(Protocol):
    """The numbers that make a tiny model (``recipe.TinyModel`` has them)."""

    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    max_positions: int
    tied: bool


def vocabulary() -> dict[str, int]:
    """Tokens and their ids: four special ones, then one a byte."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    special = [PAD, END, START_ROLE, END_ROLE]
    return {token: index for index, token in enumerate(special + alphabet)}


def vocab_size() -> int:
    """Width of a model's logits: the vocabulary, filled up to whole blocks of 32."""
    return -(-len(vocabulary()) // 32) * 32


def build_tokenizer(max_length: int) -> PreTrainedTokenizerFast:
    """One token a byte, four special tokens, a ChatML template: any text, reversible."""
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE(vocab=vocabulary(), merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        eos_token=END_ROLE,
        additional_special_tokens=[END, START_ROLE],
        clean_up_tokenization_spaces=False,
        model_max_length=max_length,
    )
    fast.chat_template = CHAT_TEMPLATE
    return fast


def build_model(
    dimensions: Dimensions, tokenizer: PreTrainedTokenizerFast, seed: int
) -> PreTrainedModel:
    """A float32 Llama of these dimensions with weights drawn from ``seed``."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=vocab_size(),
        hidden_size=dimensions.hidden_size,
        intermediate_size=dimensions.intermediate_size,
        num_hidden_layers=dimensions.num_layers,
        num_attention_heads=dimensions.num_heads,
        num_key_value_heads=dimensions.num_kv_heads,
        max_position_embeddings=dimensions.max_positions,
        tie_word_embeddings=dimensions.tied,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return LlamaForCausalLM(config)
