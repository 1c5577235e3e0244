"""Models that are the same are found to be the same, whatever holds and runs them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from transformers import LlamaConfig, LlamaForCausalLM

from quantship.errors import DataError, UsageError
from quantship.validation.options import Options
from quantship.validation.report import Validation
from quantship.validation.run import BOTH, validate

QUICK = Options(sequences=2, length=24, new_tokens=6)


def failed(found: Validation) -> dict[str, str]:
    return {check.name: check.detail for check in found.checks if not check.passed}


@pytest.mark.parametrize(
    ("a", "b", "compared"),
    [
        ("float", "float", {"tensors of the same name"}),
        ("float", "onnx float", set()),
        ("w8a8", "w8a8", {BOTH, "tensors of the same name"}),
        ("w8a8", "onnx w8a8 nbits", {BOTH}),
        ("w8a8", "onnx w8a8 integer", {BOTH}),
        ("onnx w8a8 integer", "w8a8", {BOTH}),
        ("w4a16-g32", "onnx w4a16 nbits", {BOTH}),
        ("w8a8-static", "onnx static integer", {BOTH}),
        ("onnx w8a8 nbits", "onnx w8a8 integer", {BOTH, "tensors of the same name"}),
        ("onnx float", "onnx float", {"tensors of the same name"}),
    ],
)
def test_one_model_in_two_forms_is_equal(models: Any, a: str, b: str, compared: set[str]) -> None:
    found = validate(models(a), models(b), QUICK)
    assert failed(found) == {}
    assert found.equal
    assert {part.what for part in found.numbers} == compared
    assert all(part.compared >= 5 for part in found.numbers)
    (logits,) = found.outputs
    assert logits.positions == 48
    assert logits.not_finite == (0, 0)
    assert found.perplexity is not None
    assert found.perplexity[0] == pytest.approx(found.perplexity[1], rel=0.01)
    assert found.continuation is not None
    assert len(found.continuation.a) == 6


def test_the_same_files_compute_the_very_same(models: Any) -> None:
    found = validate(models("onnx w8a8 integer"), models("onnx w8a8 integer"), QUICK)
    (logits,) = found.outputs
    assert (logits.max_abs_diff, logits.kl_ab_nats, logits.top1_agreement) == (0, 0, 1)
    assert found.continuation is not None
    assert found.continuation.first_difference is None
    assert found.a.files[0].sha256 == found.b.files[0].sha256


def test_float_and_quantized_are_compared_by_what_they_compute(models: Any) -> None:
    found = validate(models("float"), models("w8a16"), QUICK)
    assert found.equal
    assert "8 bits" in found.tolerance.why
    assert BOTH not in {part.what for part in found.numbers}
    narrow = validate(models("float"), models("w4a16-g32"), QUICK)
    assert narrow.equal
    assert narrow.tolerance.relative is None
    asked = validate(
        models("float"), models("w4a16-g32"), QUICK.model_copy(update={"tolerance": 1e-3})
    )
    assert failed(asked).keys() == {"logits"}


@pytest.mark.parametrize(
    ("option", "value", "check"),
    [("tolerance", 0.0, "logits"), ("max_kl", 0.0, "KL"), ("min_top1", 1.0, "top-1")],
)
def test_tolerances_that_are_asked_for_count(
    models: Any, option: str, value: float, check: str
) -> None:
    options = Options.model_validate({"length": 96, "new_tokens": 2, option: value})
    found = validate(models("float"), models("w4a16-g32"), options)
    assert failed(found).keys() == {check}


def test_a_text_of_the_users_own_is_read(models: Any, tmp_path: Path) -> None:
    text = tmp_path / "own.txt"
    text.write_text("Grüße aus dem Süden!\n" * 4)
    options = QUICK.model_copy(update={"text": text})
    found = validate(models("float"), models("onnx float"), options)
    assert found.equal
    assert str(text) in found.inputs
    other = validate(models("float"), models("onnx float"), QUICK)
    assert other.perplexity != found.perplexity


@pytest.mark.parametrize(
    ("content", "error", "words"),
    [
        (None, UsageError, "cannot be read"),
        (b" \n", DataError, "no text"),
        (b"\xff\xfe\xfd", DataError, "not UTF-8"),
        (b"a", DataError, "predicts nothing"),
    ],
)
def test_a_text_that_is_none_is_refused(
    models: Any, tmp_path: Path, content: bytes | None, error: Any, words: str
) -> None:
    text = tmp_path / "own.txt"
    if content is not None:
        text.write_bytes(content)
    with pytest.raises(error, match=words):
        validate(models("float"), models("float"), QUICK.model_copy(update={"text": text}))


def small_model(path: Path, vocab_size: int) -> Path:
    config = LlamaConfig(
        vocab_size=vocab_size,
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=20,
    )
    LlamaForCausalLM(config).save_pretrained(path)
    return path


def test_models_without_a_tokenizer_read_random_tokens(tmp_path: Path) -> None:
    path = small_model(tmp_path / "bare", 300)
    found = validate(path, path, Options(sequences=2, seed=3))
    assert found.equal
    assert "2 sequences of 20 random tokens" in found.inputs  # it takes no more
    assert found.perplexity is None
    assert found.continuation is not None
    assert (found.continuation.prompt_tokens, len(found.continuation.a)) == (10, 10)


def test_another_vocabulary_is_named(tmp_path: Path) -> None:
    one, other = small_model(tmp_path / "one", 300), small_model(tmp_path / "other", 301)
    found = validate(one, other, QUICK)
    assert "A predicts 300 tokens and B 301" in failed(found)["vocabulary"]


def test_another_tokenizer_is_named(models: Any, copy: Any) -> None:
    path = copy(models("float"))
    tokenizer = json.loads((path / "tokenizer.json").read_text())
    vocabulary = tokenizer["model"]["vocab"]
    vocabulary["a"], vocabulary["b"] = vocabulary["b"], vocabulary["a"]
    (path / "tokenizer.json").write_text(json.dumps(tokenizer))
    found = validate(models("float"), path, QUICK)
    assert not found.equal
    assert "2 tokens are not the same; 'a'" in failed(found)["tokenizers"]


def test_a_tokenizer_that_cuts_otherwise_is_named(models: Any, copy: Any) -> None:
    path = copy(models("float"))
    tokenizer = json.loads((path / "tokenizer.json").read_text())
    tokenizer["normalizer"] = {"type": "Lowercase"}
    (path / "tokenizer.json").write_text(json.dumps(tokenizer))
    found = validate(models("float"), path, QUICK)
    assert "cut the text in other ways from token 0 on" in failed(found)["tokenizers"]


@pytest.mark.parametrize("name", ["nothing", "empty", "several"])
def test_what_is_no_model_is_refused(models: Any, tmp_path: Path, name: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "several").mkdir()
    for graph in ("a.onnx", "b.onnx"):
        shutil.copy(models("onnx float") / "model.onnx", tmp_path / "several" / graph)
    words = {"nothing": "does not exist", "empty": "no model", "several": "name one of a.onnx"}
    with pytest.raises(UsageError, match=words[name]):
        validate(models("float"), tmp_path / name, QUICK)
