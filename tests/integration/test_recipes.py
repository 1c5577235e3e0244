"""Every shipped recipe, run from end to end on a tiny model of the architecture it is for."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from safetensors import safe_open

import quantship
from quantship.quant import checkpoint
from quantship.quant.layers import is_tied
from quantship.quant.loading import load as load_model
from quantship.recipe import load
from quantship.recipe.language import (
    ExportStep,
    QuantizeStep,
    Recipe,
    SearchStep,
    TrainingOptions,
)
from quantship.recipe.resolve import exported_as
from quantship.recipe.schemes import table
from quantship.recipe.shipped import find, names
from quantship.runtimes.base import open_runtime
from quantship.tiny import build_tokenizer, vocab_size

if TYPE_CHECKING:
    from quantship.pipeline import RunResult
    from quantship.quant.scheme import Scheme

pytestmark = pytest.mark.slow

ELSEWHERE = {"digits-mlp", "distilbert-sst2-int8", "quickstart", "smollm2-135m-evidence"}
"""Shipped recipes that tests/e2e and files of their own run."""
LONGEST = 128
"""Tokens of the longest sequence."""
NUM_TRAIN, NUM_EVAL = 12, 6
SIZES: dict[str, Any] = {
    "vocab_size": vocab_size(),
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": LONGEST,
    "tie_word_embeddings": True,
}
"""The least that a group of 128 divides."""


# Models


def llama() -> Any:
    from transformers import LlamaConfig

    return LlamaConfig(**SIZES)


def gemma3() -> Any:
    from transformers import Gemma3TextConfig

    layers = ["sliding_attention", "full_attention"]  # of each kind, as in the real one
    return Gemma3TextConfig(**SIZES, head_dim=32, sliding_window=16, layer_types=layers)


def gpt2() -> Any:
    from transformers import GPT2Config

    sizes: dict[str, Any] = {"n_embd": 128, "n_layer": 2, "n_head": 4, "n_positions": LONGEST}
    return GPT2Config(vocab_size=vocab_size(), **sizes)


def qwen3() -> Any:
    from transformers import Qwen3Config

    return Qwen3Config(**SIZES, head_dim=32)


CONFIGS = {"llama": llama, "gemma3": gemma3, "gpt2": gpt2, "qwen3": qwen3}
RUNS = {
    "gemma-3-270m-it-int8-qat": "gemma3",
    "gpt2-wikitext-qat-int8": "gpt2",
    "llama-3.2-1b": "llama",
    "smollm2-135m-4bit-qat": "llama",
    "smollm2-135m-every-scheme": "llama",
    "smollm2-135m-mixed": "llama",
    "smollm2-135m-ptq": "llama",
    "smollm2-135m-schemes": "llama",
    "smollm2-135m-w8a8-qat": "llama",
}
"""Recipe to the architecture of its model."""
QWEN3 = "smollm2-135m-every-scheme on qwen3"
QWEN3_STEPS = {
    *("finetune", "ptq-w8a8-symmetric", "ptq-w8a8-static", "ptq-w4a16-mixed"),
    *("qat-w4a8", "qat-w2a16-g32"),
}
"""Of the recipe that has every scheme, what another architecture runs."""
EVERY = [*RUNS, QWEN3]
OFFLINE = {
    "smollm2-135m-4bit-qat",
    "smollm2-135m-mixed",
    "smollm2-135m-ptq",
    "smollm2-135m-schemes",
    "smollm2-135m-w8a8-qat",
}
ONLINE = [name for name in EVERY if name not in OFFLINE]
"""Those that have torchao quantize while it loads as well."""


def save_model(architecture: str, folder: Path) -> Path:
    """A tiny model of an architecture and its tokenizer, which writes chats unless GPT-2's."""
    from transformers import AutoModelForCausalLM

    tokenizer = build_tokenizer(LONGEST)
    if architecture == "gpt2":
        tokenizer.chat_template = None
    config = CONFIGS[architecture]()
    config.bos_token_id = config.eos_token_id = tokenizer.eos_token_id
    config.pad_token_id = tokenizer.pad_token_id
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


# Data


def gsm8k(count: int) -> str:
    rows = (
        {"question": f"What is {n} + {n}?", "answer": f"<<{n}+{n}={2 * n}>>\n#### {2 * n}"}
        for n in range(count)
    )
    return "".join(json.dumps(row) + "\n" for row in rows)


def squad(count: int) -> str:
    paragraphs = [
        {
            "context": f"The house has {n} rooms.",
            "qas": [
                {
                    "id": str(n),
                    "question": "How many rooms?",
                    "answers": [{"text": str(n), "answer_start": 14}],
                }
            ],
        }
        for n in range(count)
    ]
    return json.dumps({"version": "1.1", "data": [{"title": "", "paragraphs": paragraphs}]})


def wikitext(count: int) -> str:
    articles = (
        f" \n = Number {n} = \n \n The number {n} follows {n - 1} and comes before {n + 1} . \n"
        for n in range(count)
    )
    return "".join(articles)


WRITERS: dict[str, Callable[[int], str]] = {"gsm8k": gsm8k, "squad": squad, "wikitext": wikitext}


def tiny_overrides(recipe: Recipe, model: Path, folder: Path) -> list[str]:
    """What makes a recipe run on this machine in seconds; its steps stay what they are."""
    settings = [f"model={model}", f"data.max_length={LONGEST}", "benchmark=null"]
    for split, sources in (("train", recipe.data.train), ("eval", recipe.data.eval)):
        for index, source in enumerate(sources):
            file = folder / f"{split}-{index}"
            file.write_text(WRITERS[source.adapter](NUM_TRAIN if split == "train" else NUM_EVAL))
            settings.append(f"data.{split}.{index}.path={file}")
    settings += [
        f"steps.{step.name}.{setting}"
        for step in recipe.steps
        if isinstance(step, TrainingOptions)
        for setting in ("max_steps=2", "batch_size=2", "gradient_accumulation=1")
    ]
    return settings


class Runs:
    """Runs of shipped recipes on tiny models, each made once."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._made = cache(self._make)

    def __call__(self, name: str) -> RunResult:
        """The run of one of ``EVERY``."""
        return self._made(name)[1]

    def recipe(self, name: str) -> Recipe:
        """The recipe that was run, with what made it tiny."""
        return self._made(name)[0]

    def schemes(self, name: str) -> dict[str, Scheme]:
        """Schemes of the recipe's PTQ steps, by the names of the steps."""
        recipe = self.recipe(name)
        known = table(recipe)
        return {
            str(step.name): known[str(step.scheme)]
            for step in recipe.steps
            if isinstance(step, QuantizeStep)
        }

    def checkpoints(self, name: str) -> dict[str, Path]:
        """Directories of all models that are not ONNX, by the names of their rows."""
        result = self(name)
        rows = [row.name for row in result.report.models if row.kind != "onnx"]
        return {row: result.artifacts[row].path for row in rows}

    def _make(self, name: str) -> tuple[Recipe, RunResult]:
        folder = self._root / name.replace(" ", "-")
        folder.mkdir(exist_ok=True)
        shipped = name.partition(" on ")[0]
        file, shape = find(shipped), "qwen3" if name == QWEN3 else RUNS[shipped]
        recipe = load(file, profile="smoke")
        only = []
        if name == QWEN3:
            recipe = recipe.model_copy(
                update={"steps": tuple(step for step in recipe.steps if step.name in QWEN3_STEPS)}
            )
            steps = [step.model_dump(mode="json", exclude_none=True) for step in recipe.steps]
            only = [f"steps={json.dumps(steps)}"]
        overrides = [*only, *tiny_overrides(recipe, save_model(shape, folder / "model"), folder)]
        return load(file, profile="smoke", overrides=overrides), quantship.run(
            file, profile="smoke", overrides=overrides, artifacts=folder / "artifacts"
        )


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, one_thread: None) -> Runs:
    return Runs(tmp_path_factory.mktemp("recipes"))


def test_every_shipped_recipe_is_run() -> None:
    assert set(names()) == RUNS.keys() | ELSEWHERE


# Every recipe


@pytest.mark.parametrize("name", EVERY)
def test_every_step_leaves_a_model_that_was_evaluated(runs: Runs, name: str) -> None:
    result = runs(name)
    rows = [row.name for row in result.report.models]
    for step in (one for one in runs.recipe(name).steps if not isinstance(one, SearchStep)):
        made = exported_as(step).values() if isinstance(step, ExportStep) else [step.name]
        assert set(made) <= set(rows)
    evaluated = [row for row in result.report.models if row.name != "model"]
    perplexities = [row.metrics.perplexity for row in evaluated if row.metrics is not None]
    assert len(perplexities) == len(evaluated)
    # Untrained, each token is a guess among them all, and a few steps change that by little.
    assert all(vocab_size() / 3 < one < 1.2 * vocab_size() for one in perplexities)


@pytest.mark.parametrize("name", EVERY)
def test_every_quantized_model_holds_the_integers_it_was_made_of(runs: Runs, name: str) -> None:
    result = runs(name)
    exports = [step for step in runs.recipe(name).steps if isinstance(step, ExportStep)]
    sources = {made: source for step in exports for source, made in exported_as(step).items()}
    quantized = [row for row in result.report.models if row.scheme is not None]
    assert quantized
    for row in quantized:
        assert row.parity is not None
        assert row.parity.codes_equal
        source = sources.get(row.name, row.name)
        stored = checkpoint.load_codes(result.artifacts[source].path)
        assert row.parity.tensors_compared == len(stored) > 0
        assert row.parity.kl_nats < 1e-3


@pytest.mark.parametrize("name", EVERY)
def test_a_float_export_computes_what_its_source_does(runs: Runs, name: str) -> None:
    exported = [row for row in runs(name).report.models if row.kind == "onnx" and not row.scheme]
    assert bool(exported) == any(step.stage == "export" for step in runs.recipe(name).steps)
    for row in exported:
        assert row.parity is not None
        assert row.parity.codes_equal is None
        assert row.parity.max_abs_logit_diff < 1e-4


@pytest.mark.parametrize("name", EVERY)
def test_a_tied_pair_is_one_tensor_in_file_and_memory(runs: Runs, name: str) -> None:
    for path in runs.checkpoints(name).values():
        with safe_open(path / checkpoint.WEIGHTS, "pt") as file:
            assert not [key for key in file.keys() if "lm_head" in key]  # noqa: SIM118
        assert is_tied(load_model(path))


@pytest.mark.parametrize("name", EVERY)
def test_a_checkpoint_computes_with_its_cache_what_it_computes_without(
    runs: Runs, name: str
) -> None:
    tokens = np.random.default_rng(0).integers(4, 260, (2, 24))
    for row, path in runs.checkpoints(name).items():
        if row.endswith("w8a8-per-tensor"):
            continue  # what shares a scale is then not the same
        runtime = open_runtime(path)
        whole = runtime.logits(tokens, np.ones_like(tokens))
        last = [runtime.prefill(tokens[:, :21], 24)]
        last += [runtime.decode(tokens[:, place]) for place in (21, 22, 23)]
        cached = np.stack(last, axis=1)
        # Sums in another order move a float to the next code here and there.
        assert np.abs(cached - whole[:, 20:]).max() < 0.05 * np.abs(whole).max()


# Quantizing again: in a second step, and while loading


def test_the_second_step_is_held_to_what_the_first_trained(runs: Runs) -> None:
    result = runs("llama-3.2-1b")
    found = result.artifacts["w8a8-qat-int8"].facts["handoff"]
    assert found["codes_equal"] is False
    assert 0.5 < found["share_of_codes_equal"] < 1
    (route,) = [route for route in result.report.routes if route.route == "two-step"]
    assert (route.model, route.reference) == ("w8a8-qat-int8", "w8a8-qat-fake")
    assert route.share_of_codes_equal == found["share_of_codes_equal"]
    fake = load_model(result.artifacts["w8a8-qat-fake"].path)
    assert {parameter.dtype for parameter in fake.parameters()} == {torch.bfloat16}
    rows = {row.name: row for row in result.report.models}
    assert (rows["w8a8-qat-fake"].kind, rows["w8a8-qat-int8"].kind) == ("float", "torchao")


@pytest.mark.parametrize("name", ONLINE)
def test_torchao_finds_the_checkpoints_integers_while_it_loads(runs: Runs, name: str) -> None:
    report, schemes = runs(name).report, runs.schemes(name)
    routes = {route.model: route for route in report.routes if route.route == "online"}
    assert routes.keys() == {step for step, scheme in schemes.items() if not scheme.is_static}
    metrics = {row.name: row.metrics for row in report.models}
    for step, route in routes.items():
        # Its scales are float32 while it rounds; it shortens them afterwards.
        shortened = schemes[step].weight.scale_dtype == "bfloat16"
        assert route.codes_equal != shortened
        assert route.share_of_codes_equal > 0.98
        measured = metrics[step]
        assert measured is not None
        near = 0.05 if shortened else 1e-6
        assert route.perplexity == pytest.approx(measured.perplexity, rel=near)


# What an architecture has of its own


def test_gpt2s_conv1d_layers_are_quantized_as_linear_ones(runs: Runs) -> None:
    for step in ("ptq-int8", "qat-int8"):
        stored = checkpoint.load_codes(runs("gpt2-wikitext-qat-int8").artifacts[step].path)
        assert len(stored) == 1 + 2 * 4
        assert {name.rpartition(".")[2] for name in stored} == {"wte", "c_attn", "c_proj", "c_fc"}
        assert stored["transformer.h.0.mlp.c_fc"].codes.codes_OI.shape == (4 * 128, 128)


def test_gemmas_embedding_stays_in_float(runs: Runs) -> None:
    for step in ("ptq-int8", "qat-int8"):
        stored = checkpoint.load_codes(runs("gemma-3-270m-it-int8-qat").artifacts[step].path)
        assert len(stored) == 2 * 7
        assert not any("embed" in name for name in stored)


def test_static_ranges_are_calibrated_on_the_training_data(runs: Runs) -> None:
    for name, steps in (
        ("smollm2-135m-every-scheme", ("ptq-w8a8-static", "qat-w8a8-static")),
        (QWEN3, ("ptq-w8a8-static",)),
    ):
        result = runs(name)
        for step in steps:
            artifact = result.artifacts[step]
            assert artifact.facts["calibration_sequences"] == NUM_TRAIN
            stored = checkpoint.load_codes(artifact.path).values()
            assert sum(part.input_grid is not None for part in stored) == 2 * 7
