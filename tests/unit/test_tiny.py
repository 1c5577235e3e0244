from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from quantship.recipe.language import TinyModel
from quantship.tiny import END_ROLE, PAD, START_ROLE, build_model, build_tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

TOKENIZER = build_tokenizer(max_length=64)
SMALL = TinyModel(hidden_size=32, intermediate_size=48, num_layers=1, num_heads=2, num_kv_heads=1)
TEXT = st.text(st.characters(exclude_categories=["Cs"]))


@given(TEXT)
def test_any_text_comes_back_and_costs_a_token_a_byte(text: str) -> None:
    ids = TOKENIZER(text, add_special_tokens=False)["input_ids"]
    assert TOKENIZER.decode(ids, skip_special_tokens=False) == text
    if "<|" not in text:
        assert len(ids) == len(text.encode())


def test_special_tokens_are_one_token_each_and_end_a_turn() -> None:
    ids = [TOKENIZER.convert_tokens_to_ids(token) for token in (PAD, START_ROLE, END_ROLE)]
    assert len(set(ids)) == 3
    for token in (PAD, START_ROLE, END_ROLE):
        assert len(TOKENIZER(f"a{token}b")["input_ids"]) == 3
    assert (TOKENIZER.pad_token, TOKENIZER.eos_token) == (PAD, END_ROLE)
    assert TOKENIZER.model_max_length == 64


def test_a_chat_that_goes_on_begins_as_it_did() -> None:
    turns = [
        {"role": "user", "content": "2 + 2?"},
        {"role": "assistant", "content": "4"},
        {"role": "user", "content": "Why?"},
    ]

    def render(count: int, **options: Any) -> str:
        return str(TOKENIZER.apply_chat_template(turns[:count], tokenize=False, **options))

    assert render(3).startswith(render(2))
    assert render(2).startswith(render(1, add_generation_prompt=True))
    assert render(2) == ("<|im_start|>user\n2 + 2?<|im_end|>\n<|im_start|>assistant\n4<|im_end|>\n")


def _weights(seed: int, dimensions: TinyModel = SMALL) -> dict[str, Any]:
    return dict(build_model(dimensions, TOKENIZER, seed).state_dict())


def test_the_seed_alone_decides_the_weights() -> None:
    first = _weights(0)
    torch.manual_seed(123)
    again, other = _weights(0), _weights(1)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


def test_the_global_generator_is_left_alone() -> None:
    torch.manual_seed(7)
    expected = torch.rand(4)
    torch.manual_seed(7)
    build_model(SMALL, TOKENIZER, seed=0)
    assert torch.equal(torch.rand(4), expected)


@pytest.mark.parametrize("tied", [True, False])
def test_the_dimensions_are_those_asked_for(tied: bool) -> None:
    dimensions = TinyModel(
        hidden_size=64,
        intermediate_size=96,
        num_layers=3,
        num_heads=4,
        num_kv_heads=2,
        max_positions=77,
        tied=tied,
    )
    model = build_model(dimensions, TOKENIZER, seed=0)
    config: Any = model.config
    assert (config.hidden_size, config.intermediate_size) == (64, 96)
    assert (config.num_hidden_layers, config.max_position_embeddings) == (3, 77)
    assert (config.num_attention_heads, config.num_key_value_heads) == (4, 2)
    embedding: Any = model.get_input_embeddings()
    head: Any = model.get_output_embeddings()
    assert (embedding.weight is head.weight) == tied
    assert model.dtype == torch.float32


def test_the_vocabulary_fills_whole_blocks_and_holds_every_token() -> None:
    model = build_model(SMALL, TOKENIZER, seed=0)
    embedding: Any = model.get_input_embeddings()
    rows = embedding.weight.shape[0]
    assert rows % 32 == 0
    assert len(TOKENIZER) <= rows < len(TOKENIZER) + 32


def test_it_lasts_through_a_file(tiny_tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = build_model(SMALL, tiny_tokenizer, seed=0)
    model.save_pretrained(tmp_path)
    tiny_tokenizer.save_pretrained(tmp_path)
    tokens = torch.tensor([[5, 6, 7]])
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert torch.equal(loaded(tokens).logits, model.eval()(tokens).logits)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    text = "Grüße, 世界\n\t🙂"
    assert tokenizer(text)["input_ids"] == tiny_tokenizer(text)["input_ids"]
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
    assert tokenizer.chat_template == tiny_tokenizer.chat_template
    assert loaded.generation_config.eos_token_id == tiny_tokenizer.eos_token_id
