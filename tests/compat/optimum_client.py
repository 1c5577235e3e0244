"""optimum's ORTModelForCausalLM loads an export as it is and says what quantship says.

Runs in an environment without quantship: ``nox -s compat``.
"""

from __future__ import annotations

import json
import os
import re
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import torch
from optimum.onnxruntime import ORTModelForCausalLM
from transformers import AutoTokenizer

EXPORTS = Path(os.environ["QUANTSHIP_COMPAT_EXPORTS"])
EXPECTED = json.loads((EXPORTS / "expected.json").read_text())
README = Path(os.environ["QUANTSHIP_COMPAT_README"])

torch.set_num_threads(1)
every = pytest.mark.parametrize("name", EXPECTED["exports"])
own_width = {name for name, one in EXPECTED["exports"].items() if one["own_width"]}
served = pytest.mark.parametrize(
    "name", [one for one in EXPECTED["exports"] if one not in own_width]
)


def continued(model: ORTModelForCausalLM, prompts: list[list[int]], **options: Any) -> Any:
    """What the model appends to prompts of one length."""
    ids = torch.tensor(prompts)
    new = model.generate(
        ids, attention_mask=torch.ones_like(ids), max_new_tokens=24, do_sample=False, **options
    )
    return new[:, ids.shape[1] :].tolist()


@served
def test_greedy_tokens_are_quantships(name: str) -> None:
    model = ORTModelForCausalLM.from_pretrained(EXPORTS / name)
    assert model.can_use_cache
    for one in EXPECTED["exports"][name]["alone"]:
        (new,) = continued(model, [one["prompt"]])
        end = model.generation_config.eos_token_id
        assert (new[: new.index(end)] if end in new else new) == one["tokens"]


@served
def test_a_batch_of_prompts_of_one_length_is_continued_as_by_quantship(name: str) -> None:
    model = ORTModelForCausalLM.from_pretrained(EXPORTS / name)
    batch = EXPECTED["exports"][name]["together"]
    assert continued(model, batch["prompts"]) == batch["tokens"]


@served
def test_prompts_padded_on_the_left_are_refused(name: str) -> None:
    """They would be read wrongly: the model counts a mask's ones and begins at the first token."""
    tokenizer = AutoTokenizer.from_pretrained(EXPORTS / name)
    model = ORTModelForCausalLM.from_pretrained(EXPORTS / name)
    batch = tokenizer(["a longer prompt", "a prompt"], padding=True, return_tensors="pt")
    with pytest.raises(Exception, match="takes prompts of one length, or padded on the right"):
        model.generate(**batch, max_new_tokens=2)


def test_a_cache_of_a_shape_unknown_to_optimum_is_refused() -> None:
    """It takes features by heads for the width of a head, save for models that it lists."""
    (name,) = own_width
    model = ORTModelForCausalLM.from_pretrained(EXPORTS / name)
    with pytest.raises(Exception, match=r"invalid dimensions for input: past_key_values(.|\n)*32"):
        continued(model, [[5, 6, 7]])


def test_beams_share_the_cache_with_those_they_came_from() -> None:
    model = ORTModelForCausalLM.from_pretrained(EXPORTS / "w8a8-nbits")
    prompt = EXPECTED["exports"]["w8a8-nbits"]["alone"][1]["prompt"]
    (new,) = continued(model, [prompt], num_beams=3)
    (again,) = continued(model, [prompt], num_beams=3, use_cache=False)
    assert new == again


@every
def test_the_tokenizer_reads_text_and_chats_alike(name: str) -> None:
    tokenizer = AutoTokenizer.from_pretrained(EXPORTS / name)
    for one in EXPECTED["exports"][name]["alone"]:
        assert tokenizer(one["text"]).input_ids == one["prompt"]
        assert tokenizer.decode(one["prompt"]) == one["text"]
    chat = EXPECTED["chat"]
    text = tokenizer.apply_chat_template(
        chat["messages"], tokenize=False, add_generation_prompt=True
    )
    assert text == chat["text"]
    assert set(tokenizer("a")) == {"input_ids", "attention_mask"}  # what the model takes


def test_the_readme_shows_it_as_it_works() -> None:
    blocks = re.findall(r"^```python\n(.*?)^```$", README.read_text(), re.MULTILINE | re.DOTALL)
    (snippet,) = [block for block in blocks if "ORTModelForCausalLM" in block]
    one = EXPECTED["exports"]["w8a8-nbits"]["alone"][1]
    here, replaced = re.subn(r'"artifacts/[^"]*"', repr(str(EXPORTS / "w8a8-nbits")), snippet)
    here, asked = re.subn(r'"Once upon a time"', repr(one["text"]), here)
    assert (replaced, asked) == (1, 1)
    shown = StringIO()
    with redirect_stdout(shown):
        exec(compile(here, "README.md", "exec"), {})
    tokenizer = AutoTokenizer.from_pretrained(EXPORTS / "w8a8-nbits")
    assert shown.getvalue().startswith(tokenizer.decode(one["prompt"] + one["tokens"]))


FILES = {"q8": "model_quantized.onnx", "q4": "model_q4.onnx"}


@pytest.mark.parametrize("dtype", FILES)
def test_a_pushed_repository_says_what_quantship_says(dtype: str) -> None:
    one = EXPECTED["published"]["models"][dtype]
    place = EXPORTS / "published"
    tokenizer = AutoTokenizer.from_pretrained(place, subfolder="onnx")
    assert tokenizer(one["text"], add_special_tokens=False).input_ids == one["prompt"]
    model = ORTModelForCausalLM.from_pretrained(place, subfolder="onnx", file_name=FILES[dtype])
    (new,) = continued(model, [one["prompt"]])
    end = model.generation_config.eos_token_id
    assert (new[: new.index(end)] if end in new else new) == one["tokens"]


def test_the_model_card_shows_it_as_it_works() -> None:
    card = (EXPORTS / "published" / "README.md").read_text()
    blocks = re.findall(r"^```python\n(.*?)^```$", card, re.MULTILINE | re.DOTALL)
    (snippet,) = [block for block in blocks if "ORTModelForCausalLM" in block]
    quoted = f'"{EXPECTED["published"]["repository"]}"'
    assert snippet.count(quoted) == 1
    here = snippet.replace(quoted, repr(str(EXPORTS / "published")))
    shown = StringIO()
    with redirect_stdout(shown):
        exec(compile(here, "README.md", "exec"), {})
    one = EXPECTED["published"]["models"]["q8"]
    tokenizer = AutoTokenizer.from_pretrained(EXPORTS / "published", subfolder="onnx")
    assert shown.getvalue().startswith(tokenizer.decode(one["prompt"] + one["tokens"]))
