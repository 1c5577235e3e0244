from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import quantship
from quantship.runtimes.base import Runtime, greedy, open_runtime
from quantship.runtimes.generation import continuations, generate

pytestmark = pytest.mark.usefixtures("one_thread")

NEW = 12
STOP = 3
TIE = 1e-4
ROUNDED_TIE = 0.05
"""Logits, of the deviation of all, between which the order of additions may decide; the second
where inputs are rounded, since the last bit of a float may move a value to the next code."""

Prompts = list[list[int]]
prompts = st.lists(st.lists(st.integers(4, 259), min_size=1, max_size=24), min_size=1, max_size=6)


def window(tokenizer: Any) -> Any:
    """A Mistral whose layers look back 8 tokens."""
    from transformers import MistralConfig, MistralForCausalLM

    torch.manual_seed(1)
    return MistralForCausalLM(
        MistralConfig(
            hidden_size=128,
            intermediate_size=192,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            sliding_window=8,
            vocab_size=288,
            max_position_embeddings=256,
            initializer_range=0.2,
            bos_token_id=None,
            eos_token_id=STOP,
            pad_token_id=0,
        )
    ).eval()


def gpt2(tokenizer: Any) -> Any:
    """A GPT-2, which is exported by tracing."""
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    model = GPT2LMHeadModel(
        GPT2Config(
            n_embd=64,
            n_layer=2,
            n_head=4,
            n_positions=64,
            vocab_size=288,
            initializer_range=0.2,
            bos_token_id=1,
            eos_token_id=STOP,
        )
    )
    return model.eval()


def convolving(tokenizer: Any) -> Any:
    """An LFM2, whose first layer convolves."""
    from transformers import Lfm2Config, Lfm2ForCausalLM

    torch.manual_seed(2)
    return Lfm2ForCausalLM(
        Lfm2Config(
            hidden_size=64,
            intermediate_size=96,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            layer_types=["conv", "full_attention"],
            vocab_size=288,
            max_position_embeddings=256,
            initializer_range=0.2,
            bos_token_id=1,
            eos_token_id=STOP,
            pad_token_id=0,
        )
    ).eval()


PADS = {
    "torch": True,
    "torch, w8a8": True,
    "torch, window": True,
    "torch, convolving": False,
    "onnx": True,
    "onnx, w8a8": True,
    "onnx, w4a16": True,
    "onnx, window": True,
    "onnx, traced": False,
    "onnx, convolving": False,
    "openvino": False,
}
LOWERINGS = {"w8a8": "integer", "w4a16": "nbits"}
BUILDERS = {"window": window, "traced": gpt2, "convolving": convolving}


@pytest.fixture(scope="module")
def served(
    tiny_model_dir: Path, tiny_tokenizer: Any, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Runtime]:
    """Runtimes by their names, each loaded once."""
    from transformers import AutoModelForCausalLM

    from quantship.quant.convert import convert
    from quantship.quant.modules import prepare_qat
    from quantship.quant.scheme import SCHEMES

    root = tmp_path_factory.mktemp("served")
    runtimes: dict[str, Runtime] = {}

    def source(variant: str) -> Path:
        path = root / f"torch {variant}"
        if variant == "":
            return tiny_model_dir
        if path.exists():
            return path
        if variant in BUILDERS:
            BUILDERS[variant](tiny_tokenizer).save_pretrained(path)
        else:
            path.mkdir()
            scheme = {"w8a8": "w8a8", "w4a16": "w4a16-g32"}[variant]
            model: Any = AutoModelForCausalLM.from_pretrained(tiny_model_dir)
            convert(prepare_qat(model, SCHEMES[scheme]), path)
        tiny_tokenizer.save_pretrained(path)
        return path

    def open_one(name: str) -> Runtime:
        if name not in runtimes:
            form, _, variant = name.partition(", ")
            path = source(variant)
            if form == "openvino":
                pytest.importorskip("openvino")
                from quantship.exporters import openvino

                out = root / name
                out.mkdir()
                openvino.export(path, None, out)
                path = out
            elif form == "onnx":
                out = root / name
                lowering = LOWERINGS.get(variant, "float")
                quantship.export(path, out, lowering=lowering, target="x86")
                path = out
            runtimes[name] = open_runtime(path, 1)
        return runtimes[name]

    return open_one


def assert_same(runtime: Runtime, prompts: Prompts, found: list[list[int]], tie: float) -> None:
    """Whether continuations are those of one prompt at a time, but where two tokens tie."""
    for prompt, new in zip(prompts, found, strict=True):
        alone = greedy(runtime, prompt, NEW, frozenset([STOP]))
        if alone == new:
            continue
        place = next(
            (at for at, (a, b) in enumerate(zip(alone, new, strict=False)) if a != b),
            min(len(alone), len(new)),
        )
        read = np.array([prompt + alone[:place]])
        logits = runtime.logits(read, np.ones_like(read))[0, -1]
        first, second = ([*one, STOP][place] for one in (alone, new))
        assert abs(logits[first] - logits[second]) < tie * logits.std()


@pytest.mark.parametrize("name", PADS)
@settings(max_examples=12, deadline=None)
@given(prompts=prompts, batch_size=st.integers(1, 7))
def test_together_they_say_what_each_says_alone(
    served: Callable[[str], Runtime], name: str, prompts: Prompts, batch_size: int
) -> None:
    runtime = served(name)
    assert runtime.pads is PADS[name]
    found = generate(runtime, prompts, NEW, {STOP}, batch_size=batch_size)
    assert_same(runtime, prompts, found, ROUNDED_TIE if "w8a8" in name else TIE)


@pytest.mark.parametrize("name", PADS)
def test_sequences_go_on_as_before_when_others_leave_and_turn_round(
    served: Callable[[str], Runtime], name: str
) -> None:
    runtime = served(name)
    tokens = np.random.default_rng(5).integers(4, 260, (4, 14))
    lengths = np.array([9, 4, 7, 1] if runtime.pads else [9, 9, 9, 9])
    padded = np.where(np.arange(9) < lengths[:, None], tokens[:, :9], 0)
    steps = {row: [logits] for row, logits in enumerate(runtime.prefill(padded, 14, lengths))}
    rows = [0, 1, 2, 3]
    for kept in ([0, 1, 2, 3], [3, 2, 0], [1, 2], [0]):
        runtime.keep(np.array(kept))
        rows = [rows[place] for place in kept]
        logits = runtime.decode(
            np.array([tokens[row, lengths[row] + len(steps[row]) - 1] for row in rows])
        )
        for row, one in zip(rows, logits, strict=True):
            steps[row].append(one)
    assert {row: len(made) for row, made in steps.items()} == {0: 4, 1: 2, 2: 5, 3: 3}
    for row, made in steps.items():
        read = tokens[row : row + 1, : lengths[row] + len(made) - 1]
        whole = runtime.logits(read, np.ones_like(read))[0, lengths[row] - 1 :]
        difference = np.abs(np.stack(made) - whole).max() / whole.std()
        assert difference < (ROUNDED_TIE if "w8a8" in name else TIE)


def test_continuations_come_when_they_end(served: Callable[[str], Runtime]) -> None:
    runtime, prompts = served("torch"), [[10, 20, 30], [7], [9, 8, 7, 6]]
    whole = [greedy(runtime, prompt, 6) for prompt in prompts]
    wanted = {1: 2, 0: 4}  # prompt to how many tokens are enough

    def enough(said: list[int]) -> bool:
        return any(len(said) == size and said == whole[row][:size] for row, size in wanted.items())

    found = list(continuations(runtime, prompts, 6, batch_size=3, enough=enough))
    assert found == [(1, whole[1][:2]), (0, whole[0][:4]), (2, whole[2])]


def test_what_is_known_keeps_its_place_beside_the_others(
    served: Callable[[str], Runtime], monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime, seen = served("torch"), []
    prompts = [[10, 20, 30], [7], [9, 8, 7, 6], [5, 6]]  # in batches: 2 and 0, 3 and 1
    whole = generate(runtime, prompts, 3, batch_size=2)
    prefill = runtime.prefill

    def note(input_ids: Any, capacity: int, lengths: Any) -> Any:
        seen.append(lengths.tolist())
        return prefill(input_ids, capacity, lengths)

    monkeypatch.setattr(runtime, "prefill", note)
    found = list(continuations(runtime, prompts, 3, batch_size=2, known={0, 2, 1}))
    assert found == [(3, whole[3])]
    assert seen == [[2, 1]]


def test_a_stop_token_is_no_part_of_what_was_said(served: Callable[[str], Runtime]) -> None:
    runtime, prompts = served("onnx"), [[10, 20, 30], [7]]
    whole = generate(runtime, prompts, 8)
    last = whole[0][-1]
    assert [len(new) for new in whole] == [8, 8]
    stopped = generate(runtime, prompts, 8, [last])
    assert stopped == [new[: new.index(last)] if last in new else new for new in whole]
    assert generate(runtime, prompts, 8, {new[0] for new in whole}) == [[], []]
    assert generate(runtime, [], 8) == []


def test_the_longest_come_first_and_lengths_mix_only_where_they_may(
    served: Callable[[str], Runtime], monkeypatch: pytest.MonkeyPatch
) -> None:
    lengths = [3, 7, 7, 1, 3, 7]
    prompts = [list(range(10, 10 + length)) for length in lengths]
    for name, expected in {
        "torch": [[7, 7, 7, 3], [3, 1]],
        "onnx, traced": [[7, 7, 7], [3, 3], [1]],
    }.items():
        runtime, seen = served(name), []
        prefill = runtime.prefill

        def note(input_ids: Any, capacity: int, lengths: Any, prefill: Any = prefill) -> Any:
            assert capacity == lengths.max() + 2
            seen.append(lengths.tolist())  # noqa: B023
            return prefill(input_ids, capacity, lengths)

        monkeypatch.setattr(runtime, "prefill", note)
        generate(runtime, prompts, 2, batch_size=4)
        assert seen == expected
