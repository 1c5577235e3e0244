"""onnxruntime-genai loads every kind of export as it is and says what quantship says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
import onnxruntime_genai as og
import pytest

from quantship.exporters import decoder
from quantship.exporters.lowering import Lowering, reject
from quantship.quant.convert import convert
from quantship.quant.modules import prepare_qat
from quantship.quant.scheme import SCHEMES
from quantship.recipe.language import TinyModel
from quantship.runtimes.base import greedy, open_runtime
from quantship.tiny import build_model

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

pytestmark = pytest.mark.usefixtures("one_thread")

END = 3
NEW_TOKENS = 16
TEXTS = ("The quick brown fox jumps", "Größe 😀")
"""Of a prompt by hybrid's measure, and of a few tokens."""
FLOAT: tuple[str | None, Lowering] = (None, "float")
KINDS = [FLOAT] + [
    (scheme, lowering)
    for scheme in ("w8a8", "w4a16-g32")
    for lowering in get_args(Lowering)
    if reject(SCHEMES[scheme], lowering) is None
]


@pytest.fixture(scope="module", params=KINDS, ids=lambda kind: f"{kind[0]} {kind[1]}")
def exported(
    tiny_tokenizer: PreTrainedTokenizerFast,
    tmp_path_factory: pytest.TempPathFactory,
    request: Any,
) -> Path:
    """An export of a tiny model that does not repeat itself soon; not to be written to."""
    scheme: str | None
    lowering: Lowering
    scheme, lowering = request.param
    source, out = (tmp_path_factory.mktemp(name) for name in ("source", "out"))
    model: Any = build_model(TinyModel(tied=False), tiny_tokenizer, seed=1)
    for layer in model.model.layers.parameters():
        if layer.ndim > 1:
            layer.data *= 4
    if scheme:
        prepare_qat(model, SCHEMES[scheme])
        convert(model, source)
    else:
        model.save_pretrained(source)
    tiny_tokenizer.save_pretrained(source)
    decoder.export(source, lowering, scheme, out, "x86")
    return out


def generator(model: og.Model, length: int, batch_size: int = 1) -> og.Generator:
    """One that stops after ``NEW_TOKENS``."""
    parameters = og.GeneratorParams(model)
    parameters.set_search_options(
        max_length=length + NEW_TOKENS, do_sample=False, batch_size=batch_size
    )
    return og.Generator(model, parameters)


def finished(generator: og.Generator, length: int, row: int = 0) -> list[int]:
    """What a generator adds to a prompt, up to and without the stop token."""
    while not generator.is_done():
        generator.generate_next_token()
    new: list[int] = generator.get_sequence(row)[length:].tolist()
    return new[: new.index(END)] if END in new else new


def quantships(exported: Path, prompt: list[int]) -> list[int]:
    """The continuation by quantship's own runtime."""
    return greedy(open_runtime(exported, threads=1), prompt, NEW_TOKENS, frozenset([END]))


def test_its_tokenizer_reads_text_and_chats_alike(
    exported: Path, tiny_tokenizer: PreTrainedTokenizerFast
) -> None:
    tokenizer = og.Tokenizer(og.Model(str(exported)))
    for text in TEXTS:
        expected = tiny_tokenizer(text, add_special_tokens=False).input_ids
        assert tokenizer.encode(text).tolist() == expected
        assert tokenizer.decode(np.array(expected, np.int32)) == text
    chat = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello!"}]
    shown = tokenizer.apply_chat_template(json.dumps(chat), add_generation_prompt=True)
    assert shown == tiny_tokenizer.apply_chat_template(
        chat, tokenize=False, add_generation_prompt=True
    )


def test_a_text_is_continued_as_by_quantship(exported: Path) -> None:
    model = og.Model(str(exported))
    tokenizer = og.Tokenizer(model)
    found = []
    for text in TEXTS:
        prompt = tokenizer.encode(text)
        one = generator(model, len(prompt))
        one.append_tokens(prompt)
        found.append(finished(one, len(prompt)))
        assert found[-1] == quantships(exported, prompt.tolist())
        assert tokenizer.decode(one.get_sequence(0)).startswith(text)
    assert found[0] != found[1]
    assert len({token for new in found for token in new}) > 8


def test_a_streamed_prompt_is_one_prompt(exported: Path) -> None:
    """Of one form for all tokens; ``hybrid`` rounds a prompt's inputs otherwise than a token's."""
    model = og.Model(str(exported))
    prompt = og.Tokenizer(model).encode(TEXTS[1])
    one = generator(model, len(prompt))
    for start in range(0, len(prompt), 4):
        one.append_tokens(prompt[start : start + 4])
    assert finished(one, len(prompt)) == quantships(exported, prompt.tolist())


def test_a_conversation_can_go_back_and_on(exported: Path) -> None:
    model = og.Model(str(exported))
    prompt = og.Tokenizer(model).encode(TEXTS[1])
    one = generator(model, len(prompt))
    one.append_tokens(prompt)
    first = finished(one, len(prompt))
    one.rewind_to(len(prompt) - 3)
    one.append_tokens(prompt[-3:])
    assert finished(one, len(prompt)) == first == quantships(exported, prompt.tolist())


def test_a_batch_of_two_lengths_is_each_of_them(exported: Path) -> None:
    """Both short enough that all tokens of the batch together are no prompt to ``hybrid``."""
    model = og.Model(str(exported))
    tokenizer = og.Tokenizer(model)
    texts = ["abcdefg", "To be"]
    prompts = tokenizer.encode_batch(texts)
    batch = prompts if isinstance(prompts, np.ndarray) else prompts.as_numpy()
    longest = batch.shape[1]
    both = generator(model, longest, batch_size=2)
    both.append_tokens(batch)
    for row, text in enumerate(texts):
        alone = tokenizer.encode(text).tolist()
        expected = quantships(exported, alone)
        assert finished(both, longest, row)[: len(expected)] == expected
