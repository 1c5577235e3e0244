"""Which models can teach which, told from their JSON files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from quantship.recipe.language import TinyModel
from quantship.recipe.teacher import Makeup, is_quantized, mismatch, read_makeup, tiny_makeup

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

TOKENS = {"a": 0, "b": 1, "c": 2}
STUDENT = Makeup(vocab_size=3, tokens=TOKENS, hidden_size=8, num_layers=2)


def test_a_saved_model_has_the_makeup_that_it_was_built_with(
    tiny_model_dir: Path, tiny_tokenizer: PreTrainedTokenizerFast
) -> None:
    read = read_makeup(tiny_model_dir)
    assert read == Makeup(288, tiny_tokenizer.get_vocab(), 128, 2)
    assert tiny_makeup(TinyModel()) == read


@pytest.mark.parametrize(
    ("config", "read"),
    [
        ({"vocab_size": 5, "n_embd": 7, "n_layer": 3}, Makeup(5, None, 7, 3)),
        (
            {"text_config": {"vocab_size": 5, "hidden_size": 7, "num_hidden_layers": 3}},
            Makeup(5, None, 7, 3),
        ),
        ({}, Makeup(None, None, None, None)),
        ([], Makeup(None, None, None, None)),
    ],
)
def test_what_is_not_said_is_not_known(config: object, read: Makeup, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert read_makeup(tmp_path) == read
    assert mismatch(STUDENT, Makeup(None, None, None, None), hidden_states=True) is None


@pytest.mark.parametrize(
    ("tokenizer", "tokens"),
    [
        ({"model": {"vocab": {"a": 0}}, "added_tokens": [{"id": 1, "content": "<b>"}]}, "a <b>"),
        ({"model": {"vocab": [["a", -1.0], ["b", -2.0]]}, "added_tokens": []}, "a b"),
        ({"model": {}, "added_tokens": []}, None),
        ({"model": {"vocab": {"a": 0}}, "added_tokens": [3]}, None),
    ],
)
def test_tokenizers_of_different_kinds_are_read(
    tokenizer: object, tokens: str | None, tmp_path: Path
) -> None:
    (tmp_path / "tokenizer.json").write_text(json.dumps(tokenizer))
    expected = tokens and {token: index for index, token in enumerate(tokens.split())}
    assert read_makeup(tmp_path).tokens == expected


@pytest.mark.parametrize(
    ("teacher", "message"),
    [
        (Makeup(4, TOKENS, 8, 2), "it has 4 logits and the model it teaches 3"),
        (
            Makeup(3, TOKENS | {"c": 3}, 8, 2),
            "token 2 is 'c' in the model's tokenizer, and not in the teacher's",
        ),
        (
            Makeup(3, TOKENS | {"d": 3}, 8, 2),
            "token 3 is 'd' in the teacher's tokenizer, and not in the model's",
        ),
        (Makeup(3, {"a": 1, "b": 0, "c": 2}, 8, 2), "token 0 is 'a' in the model's"),
    ],
)
def test_another_vocabulary_is_told_by_its_first_difference(teacher: Makeup, message: str) -> None:
    wrong = mismatch(STUDENT, teacher, hidden_states=False)
    assert wrong is not None
    assert wrong.message.startswith("has another vocabulary: ")
    assert message in wrong.message


@pytest.mark.parametrize(
    ("teacher", "message"),
    [
        (Makeup(3, TOKENS, 16, 2), "has 16 features in a hidden state"),
        (Makeup(3, TOKENS, 8, 9), "has 9 layers"),
    ],
)
def test_the_shape_matters_to_hidden_states_only(teacher: Makeup, message: str) -> None:
    assert mismatch(STUDENT, teacher, hidden_states=False) is None
    wrong = mismatch(STUDENT, teacher, hidden_states=True)
    assert wrong is not None
    assert wrong.message.startswith(message)


def test_a_quantized_model_says_so(tmp_path: Path, tiny_model_dir: Path) -> None:
    (tmp_path / "config.json").write_text('{"quantization_config": {}}')
    assert is_quantized(tmp_path)
    assert not is_quantized(tiny_model_dir)
