"""One model, several ways to run it: they give the same tokens."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import onnxruntime_genai as og
import pytest

from quantship.quant.scheme import SCHEMES
from quantship.runtimes.base import Logits, Runtime, Tokens, greedy, open_runtime

END = 3
NEW_TOKENS = 24
PROMPTS = ([17], [40, 41, 42, 43, 44, 45, 46], list(range(100, 131)), [9, 200, 9, 200, 9])

EXPORTS = {
    "float": (None, "float"),
    "w8a8-integer": ("w8a8", "integer"),
    "w8a8-nbits": ("w8a8", "nbits"),
    "w8a8-symmetric-integer": ("w8a8-symmetric", "integer"),
    "w8a8-static-integer": ("w8a8-static", "integer"),
    "w4a16-g32-nbits": ("w4a16-g32", "nbits"),
    "w4a16-g32-asymmetric-nbits": ("w4a16-g32-asymmetric", "nbits"),
}
CHECKPOINTS = (None, "w8a8", "w8a16", "w4a16-g32")
exports = pytest.mark.parametrize("export", EXPORTS)
models = pytest.mark.parametrize("kind", [*EXPORTS, *CHECKPOINTS], ids=lambda kind: f"of {kind}")


def exported(workshop: Any, export: str) -> Path:
    scheme, lowering = EXPORTS[export]
    path: Path = workshop.export(SCHEMES[scheme] if scheme else None, lowering, "untied")
    return path


def path_of(workshop: Any, kind: str | None) -> Path:
    if kind in EXPORTS:
        return exported(workshop, kind)
    path: Path = (
        workshop.checkpoint(SCHEMES[kind], "untied") if kind else workshop.float_dir("untied")
    )
    return path


def genai_tokens(path: Path, prompt: list[int], max_new_tokens: int) -> list[int]:
    """Greedy continuation by onnxruntime-genai, up to and without the stop token."""
    model = og.Model(str(path))
    parameters = og.GeneratorParams(model)
    parameters.set_search_options(max_length=len(prompt) + max_new_tokens, do_sample=False)
    generator = og.Generator(model, parameters)
    generator.append_tokens(np.array(prompt, np.int32))
    while not generator.is_done():
        generator.generate_next_token()
    new: list[int] = generator.get_sequence(0)[len(prompt) :].tolist()
    return new[: new.index(END)] if END in new else new


def one_shot(runtime: Runtime, sequences: list[list[int]]) -> Logits:
    """Logits of right-padded sequences, of shape (B, T, V)."""
    longest = max(map(len, sequences))
    mask = np.array([[1] * len(row) + [0] * (longest - len(row)) for row in sequences])
    padded = np.array([row + [0] * (longest - len(row)) for row in sequences])
    return runtime.logits(padded, mask)


def largest_difference(first: Logits, second: Logits) -> float:
    return float(np.abs(first - second).max() / second.std())


def limit(kind: str | None) -> float:
    """How far logits may differ, relative to their deviation, when sums are ordered differently.

    Where activations are rounded, a difference in the last bit of a float can move a value to the
    next code, which is a hundredth of the largest input; a leak of padding moves logits by a whole
    deviation.
    """
    weight_only = kind in (None, "float", "w8a16", "w4a16-g32")
    return 2e-5 if weight_only else 0.05


@pytest.mark.parametrize("prompt", PROMPTS, ids=lambda prompt: f"{len(prompt)} tokens")
@exports
def test_genai_says_what_our_runtime_says(workshop: Any, export: str, prompt: list[int]) -> None:
    path = exported(workshop, export)
    ours = greedy(open_runtime(path), prompt, NEW_TOKENS, frozenset([END]))
    assert ours == genai_tokens(path, prompt, NEW_TOKENS)
    assert len(set(ours)) > 3  # not one token again and again


@models
def test_decoding_token_by_token_is_reading_at_once(workshop: Any, kind: str | None) -> None:
    runtime = open_runtime(path_of(workshop, kind))
    for prompt in PROMPTS:
        new = greedy(runtime, prompt, NEW_TOKENS)
        at_once = one_shot(runtime, [prompt + new[:-1]])[0, len(prompt) - 1 :]
        lead = at_once.max(axis=-1) - at_once[np.arange(NEW_TOKENS), new]
        assert lead.max() < limit(kind) * at_once.std()  # 0 but where two tokens are all but equal
        assert np.median(lead) == 0


@models
def test_each_decoded_logit_is_the_one_read_at_once(workshop: Any, kind: str | None) -> None:
    runtime = open_runtime(path_of(workshop, kind))
    sequence = np.random.default_rng(0).integers(4, 260, (3, 20))
    steps = [runtime.prefill(sequence[:, :8], 20)]
    steps += [runtime.decode(sequence[:, index]) for index in range(8, 20)]
    at_once = runtime.logits(sequence, np.ones_like(sequence))[:, 7:]
    assert largest_difference(np.stack(steps, axis=1), at_once) < limit(kind)


@models
def test_padding_and_company_do_not_change_a_sequence(workshop: Any, kind: str | None) -> None:
    runtime = open_runtime(path_of(workshop, kind))
    sequences = [list(prompt) for prompt in PROMPTS]
    together = one_shot(runtime, sequences)
    for row, sequence in enumerate(sequences):
        alone = one_shot(runtime, [sequence])[0]
        assert largest_difference(together[row, : len(sequence)], alone) < limit(kind)


@models
def test_a_new_prompt_forgets_the_last_one(workshop: Any, kind: str | None) -> None:
    runtime = open_runtime(path_of(workshop, kind))
    first: Tokens = np.array([PROMPTS[1]])
    before = runtime.prefill(first, 12), runtime.decode(np.array([7]))
    runtime.prefill(np.array([PROMPTS[2], PROMPTS[2]]), 40)
    runtime.decode(np.array([8, 9]))
    after = runtime.prefill(first, 12), runtime.decode(np.array([7]))
    for one, other in zip(before, after, strict=True):
        assert np.array_equal(one, other)


@exports
def test_a_cache_that_grows_gives_the_same_tokens_as_one_in_place(
    workshop: Any, export: str, tmp_path: Path
) -> None:
    path = exported(workshop, export)
    config = json.loads((path / "genai_config.json").read_text())
    assert config["search"]["past_present_share_buffer"]
    config["search"]["past_present_share_buffer"] = False
    growing = tmp_path / "growing"
    shutil.copytree(path, growing)
    (growing / "genai_config.json").write_text(json.dumps(config))
    for prompt in PROMPTS:
        in_place = greedy(open_runtime(path), prompt, NEW_TOKENS)
        assert greedy(open_runtime(growing), prompt, NEW_TOKENS) == in_place


@pytest.mark.parametrize("scheme", ["w4a16-g32", "w4a16-g128"])
def test_narrow_scales_are_widened_once_and_for_all(
    workshop: Any, scheme: str, tmp_path: Path
) -> None:
    """What onnxruntime makes of the model when it loads it has no cast left to run."""
    stored = workshop.export(SCHEMES[scheme], "nbits", "tied") / "model.onnx"
    casts = [node for node in ir.load(stored).graph if node.op_type == "Cast"]
    narrow = [node for node in casts if node.inputs[0].dtype == ir.DataType.BFLOAT16]  # type: ignore[union-attr]
    options = ort.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "loaded.onnx")
    options.log_severity_level = 3
    ort.InferenceSession(stored, options, providers=["CPUExecutionProvider"])
    loaded = ir.load(tmp_path / "loaded.onnx").graph
    products = [node for node in loaded if node.op_type == "MatMulNBits"]
    grouped = [node for node in products if node.inputs[2].name in loaded.initializers]  # type: ignore[union-attr]
    assert len(products) == len(grouped) == 2 * 5 + 1
    assert len([node for node in loaded if node.op_type == "Cast"]) == len(casts) - len(narrow)
    assert narrow


def test_torch_and_onnxruntime_say_the_same_of_a_float_model(workshop: Any) -> None:
    torch_runtime = open_runtime(workshop.float_dir("untied"))
    onnx_runtime = open_runtime(exported(workshop, "float"))
    assert (torch_runtime.name, onnx_runtime.name) == ("torch", "onnxruntime")
    for prompt in PROMPTS:
        assert greedy(torch_runtime, prompt, NEW_TOKENS) == greedy(onnx_runtime, prompt, NEW_TOKENS)
