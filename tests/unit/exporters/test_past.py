from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime_genai as og
import pytest
import torch

import quantship
from quantship.runtimes.base import greedy, open_runtime

pytestmark = pytest.mark.usefixtures("one_thread")
PROMPT, NEW = [5, 9, 17, 3, 44, 8, 61], 12


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory: pytest.TempPathFactory, tiny_tokenizer: Any) -> tuple[Path, Path]:
    """A quantized GPT-2 as a checkpoint and as an export, in the form that has two branches."""
    from transformers import GPT2Config, GPT2LMHeadModel

    from quantship.quant.convert import convert
    from quantship.quant.modules import prepare_qat
    from quantship.quant.scheme import SCHEMES

    torch.manual_seed(0)
    model = GPT2LMHeadModel(
        GPT2Config(
            n_embd=64,
            n_layer=2,
            n_head=4,
            n_positions=64,
            vocab_size=len(tiny_tokenizer),
            bos_token_id=1,
            eos_token_id=2,
        )
    ).eval()
    for parameter in model.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.1)
    root = tmp_path_factory.mktemp("gpt2")
    source, out = root / "torch", root / "onnx"
    source.mkdir()
    convert(prepare_qat(model, SCHEMES["w8a8"]), source)  # type: ignore[arg-type]
    tiny_tokenizer.save_pretrained(source)
    facts = quantship.export(source, out, lowering="hybrid", target="x86")
    assert facts["codes_equal"] is True
    assert facts["task"] == "text-generation"
    return source, out


def test_text_comes_out_alike_token_by_token(gpt2: tuple[Path, Path]) -> None:
    ours, theirs = (greedy(open_runtime(path), PROMPT, NEW) for path in gpt2)
    assert ours == theirs


def test_padded_prompts_are_read_alike(gpt2: tuple[Path, Path]) -> None:
    ids = torch.randint(200, (3, 21), generator=torch.Generator().manual_seed(1)).numpy()
    mask = np.ones_like(ids)
    mask[0, 6:] = 0
    theirs, ours = (open_runtime(path).logits(ids, mask)[mask == 1] for path in gpt2)
    assert np.linalg.norm(ours - theirs) < 0.02 * np.linalg.norm(theirs)


def test_onnxruntime_genai_loads_the_directory_and_says_the_same(gpt2: tuple[Path, Path]) -> None:
    model = og.Model(str(gpt2[1]))
    options = og.GeneratorParams(model)
    options.set_search_options(max_length=len(PROMPT) + NEW, do_sample=False)
    generator = og.Generator(model, options)
    generator.append_tokens(np.array([PROMPT], np.int32))
    while not generator.is_done():
        generator.generate_next_token()
    said = [int(token) for token in generator.get_sequence(0)[len(PROMPT) :]]
    ours = greedy(open_runtime(gpt2[1]), PROMPT, NEW, frozenset([2]))
    assert said[: len(ours)] == ours
    assert og.Tokenizer(model).encode("abc").tolist()


def test_the_cache_is_declared_as_runtimes_expect_it(gpt2: tuple[Path, Path]) -> None:
    import onnx_ir as ir

    graph = ir.load(gpt2[1] / "model.onnx").graph
    shapes = {str(one.name): [str(size) for size in one.shape or ()] for one in graph.inputs}
    past = ["batch_size", "4", "past_sequence_length", "16"]
    assert shapes == {
        "input_ids": ["batch_size", "sequence_length"],
        "attention_mask": ["batch_size", "total_sequence_length"],
        "position_ids": ["batch_size", "sequence_length"],
        **{f"past_key_values.{n}.{kind}": past for n in (0, 1) for kind in ("key", "value")},
    }
    assert [one.name for one in graph.outputs] == [
        "logits",
        "present.0.key",
        "present.0.value",
        "present.1.key",
        "present.1.value",
    ]
    told = json.loads((gpt2[1] / "genai_config.json").read_text())
    assert told["model"]["decoder"]["num_key_value_heads"] == 4
    assert told["model"]["context_length"] == 64
