from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from quantship.recipe import load
from quantship.recipe.fit import find_problems

Write = Callable[..., Path]
Complaints = Callable[..., str]
LLAMA = {
    "model_type": "llama",
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "vocab_size": 288,
    "max_position_embeddings": 1024,
    "tie_word_embeddings": False,
}
GEMMA = {
    **LLAMA,
    "model_type": "gemma3_text",
    "num_key_value_heads": 4,
    "head_dim": 16,
    "tie_word_embeddings": True,
}
GPT2 = {"model_type": "gpt2", "n_embd": 48, "n_layer": 1, "n_head": 4}
TINY = "{tiny: {hidden_size: 64, intermediate_size: 96, num_layers: 2}}"


@pytest.fixture
def saved(tmp_path: Path) -> Callable[[dict[str, Any]], str]:
    """Save a model of a configuration; its weights are empty, for nothing may read them."""

    def saved(config: dict[str, Any]) -> str:
        path = tmp_path / "a-model"
        path.mkdir()
        (path / "config.json").write_text(json.dumps(config))
        (path / "model.safetensors").touch()
        return f"{{path: {path}}}"

    return saved


def recipe(model: str, *steps: str, schemes: str = "") -> str:
    own = f"schemes:\n{schemes}" if schemes else ""
    listed = "".join(f"  - {{{step}}}\n" for step in steps)
    data = "data: {train: [{adapter: builtin}], eval: [{adapter: builtin}]}\n"
    return f"model: {model}\n{data}{own}steps:\n{listed}"


@pytest.mark.parametrize("config", [LLAMA, GPT2])
def test_schemes_that_fit_pass(saved: Any, write: Write, config: dict[str, Any]) -> None:
    steps = ["stage: quantize, scheme: w8a8", "stage: qat, scheme: mine, lora: true"]
    own = "  mine: {weight: {bits: 4, group_size: 16}}\n"
    load(write(recipe(saved(config), *steps, schemes=own)))


@pytest.mark.parametrize("built_in", [True, False])
def test_groups_must_divide_the_layers_that_they_cut(
    saved: Any, write: Write, complaints: Complaints, built_in: bool
) -> None:
    model = TINY if built_in else saved(LLAMA)
    text = recipe(model, "stage: quantize, scheme: w8a8", "stage: qat, scheme: w4a16-g128")
    said = complaints(write(text))
    assert said.startswith(
        f"{write(text)}:5: steps.1.scheme: scheme 'w4a16-g128' cuts weights into groups of 128, "
        "and the 64 input features of layer 'model.layers.0.self_attn.q_proj' cannot be cut so\n"
    )
    text = recipe(
        model, "stage: qat, scheme: mine", schemes="  mine: {weight: {bits: 4, group_size: 64}}\n"
    )
    said = complaints(write(text))
    assert "recipe.yaml:4: schemes.mine: scheme 'mine' cuts weights into groups of 64" in said
    assert "the 96 input features of layer 'model.layers.0.mlp.down_proj'" in said
    override = "overrides: [{layers: '*.down_proj', weight: {bits: 8}}]"
    text = text.replace("group_size: 64}", f"group_size: 64}}, {override}")
    load(write(text))


def test_the_groups_of_the_embedding_must_fit_too(write: Write, complaints: Complaints) -> None:
    own = "  mine: {base: w8a8, embedding: {group_size: 48}}\n"
    said = complaints(write(recipe(TINY, "stage: qat, scheme: mine", schemes=own)))
    assert "the 64 input features of layer 'model.embed_tokens'" in said


@pytest.mark.parametrize("built_in", [True, False])
def test_an_override_must_match_a_layer(
    saved: Any, write: Write, complaints: Complaints, built_in: bool
) -> None:
    own = """\
  mine:
    base: w8a8
    overrides:
      - {layers: "*.down_proj", weight: {bits: 4}}
      - {layers: "model.layers.2.*", weight: float}
      - {layers: "*.0.*", weight: {bits: 4, group_size: 7}}
      - {layers: "*.down_prj", weight: float}
"""
    model = TINY if built_in else saved(LLAMA)
    text = recipe(model, "stage: quantize, scheme: mine", "stage: qat, scheme: mine", schemes=own)
    said = complaints(write(text)).splitlines()
    places = [line.split(": ")[:2] for line in said if not line.startswith(" ")]
    assert [(place.rpartition(":")[2], key) for place, key in places] == [
        ("4", "schemes.mine"),
        ("8", "schemes.mine.overrides.1"),
        ("10", "schemes.mine.overrides.3"),
    ]
    assert "the override 'model.layers.2.*' of scheme 'mine' matches no layer" in said[2]
    assert "groups of 7" in said[0]


def test_an_embedding_that_does_more_than_look_up_stays_in_float(
    saved: Any, write: Write, complaints: Complaints
) -> None:
    text = recipe(saved(GEMMA), "stage: quantize, scheme: w8a8")
    said = complaints(write("scheme: w8a8\n" + text.replace(", scheme: w8a8", "")))
    assert "recipe.yaml:1: scheme: scheme 'w8a8' quantizes the token embedding" in said
    assert "Choose a scheme that leaves the embedding in float, as 'w8a8-linear'." in said
    load(write(text.replace("w8a8", "w8a8-linear")))


def test_an_adapter_must_have_a_layer(saved: Any, write: Write, complaints: Complaints) -> None:
    own = "  mine: {base: w8a8, overrides: [{layers: '*.k_proj', weight: float}]}\n"
    targets = "lora: {targets: [q_proj, k_proj, query]}"
    for model in (TINY, saved(LLAMA)):
        said = complaints(write(recipe(model, f"stage: qat, scheme: mine, {targets}", schemes=own)))
        assert "steps.0.lora.targets.1: the LoRA target 'k_proj' matches no linear layer" in said
        assert "steps.0.lora.targets.2: the LoRA target 'query' matches no linear layer" in said
        assert "What could match: all-linear, down_proj, gate_proj" in said
        assert "targets.0" not in said
        fitting = targets.replace(", query", "")
        load(write(recipe(model, f"stage: qat, scheme: w8a8, {fitting}")))


@pytest.mark.parametrize(
    "config",
    [{}, {"model_type": "no-such"}, {**LLAMA, "num_attention_heads": 5}, {"model_type": "t5"}],
)
def test_a_model_that_transformers_cannot_build_is_refused(
    saved: Any, write: Write, complaints: Complaints, config: dict[str, Any]
) -> None:
    said = complaints(write(recipe(saved(config), "stage: quantize, scheme: w8a8")))
    assert "recipe.yaml:1: model.path: transformers cannot build the model of" in said
    assert said.count("\n") == 1


def test_a_quantized_model_is_refused(saved: Any, write: Write, complaints: Complaints) -> None:
    model = saved({**LLAMA, "quantization_config": {"quant_method": "torchao"}})
    said = complaints(write(recipe(model, "stage: finetune", "stage: export")))
    assert "holds a quantized model, and finetune needs a float one" in said
    load(write(recipe(model, "stage: export")))


def test_a_model_on_the_hub_is_looked_at_once_it_is_here(saved: Any, write: Write) -> None:
    found = load(write(recipe("me/model", "stage: quantize, scheme: w4a16-g128")))
    assert list(find_problems(found)) == []
    directory = Path(saved(LLAMA).removeprefix("{path: ").removesuffix("}"))
    [finding] = find_problems(found, directory)
    assert finding.key == ("steps", 0, "scheme")
    assert "groups of 128" in finding.message


def test_what_an_export_would_overlook_is_found_before_any_work(
    saved: Any, write: Write, complaints: Complaints
) -> None:
    phi = {**LLAMA, "model_type": "phi", "qk_layernorm": True}
    model = saved(phi)
    said = complaints(write(recipe(model, "stage: finetune", "stage: export")))
    assert "recipe.yaml:5: steps.1: " in said
    assert "qk_layernorm" in said
    assert said.count("\n") == 1
    load(write(recipe(model, "stage: finetune")))


def test_heads_of_a_tiny_model_must_be_ones_that_an_export_can_run(
    write: Write, complaints: Complaints
) -> None:
    odd = "{tiny: {hidden_size: 80, num_heads: 4, num_kv_heads: 2}}"
    said = complaints(write(recipe(odd, "stage: finetune", "stage: export")))
    assert "the heads of this model have 20" in said
    load(write(recipe(odd.replace("80", "96"), "stage: finetune", "stage: export")))
    load(write(recipe(odd, "stage: finetune")))


@pytest.mark.parametrize(
    ("model", "step"),
    [
        (TINY, "stage: qat, scheme: w4a16-g32, lora: true"),
        ("me/model", "stage: qat, scheme: w4a16-g32"),
        ("THERE", "stage: finetune"),
    ],
)
def test_where_nothing_can_misfit_the_libraries_stay_away(
    saved: Any, write: Write, model: str, step: str
) -> None:
    path = write(recipe(model.replace("THERE", saved(LLAMA)), step))
    code = (
        "import sys, pathlib, quantship.recipe as r;"
        f"r.check(pathlib.Path({str(path)!r})); print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
