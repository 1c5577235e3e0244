"""What a recipe may ask of a model that tells the classes of texts."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from quantship.recipe import load

Write = Callable[..., Path]
Complaints = Callable[..., str]
ENCODER = """\
model: {hub: me/bert, head: classification}
data:
  train: [{adapter: glue, task: sst2}]
  eval: [{adapter: glue, task: sst2, split: validation}]
  max_length: 128
scheme: w8a8
steps:
  - stage: finetune
  - stage: qat
  - {stage: search, name: mixed, candidates: [w4a16-g32, w8a16], target_bits: 6}
  - {stage: export, input: qat}
evaluation:
  tasks:
    - {task: classification}
    - {task: divergence}
    - {task: classification, name: again, source: {adapter: glue, task: sst2}}
"""
SIZES = {
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 128,
    "max_position_embeddings": 512,
    "vocab_size": 256,
}


@pytest.fixture
def directory(tmp_path: Path) -> Callable[..., Path]:
    """A model's directory, without its weights."""

    def directory(**config: Any) -> Path:
        folder = tmp_path / "model"
        folder.mkdir(exist_ok=True)
        (folder / "config.json").write_text(json.dumps({**SIZES, **config}))
        (folder / "model.safetensors").touch()
        return folder

    return directory


def local(folder: Path, *, head: bool) -> str:
    model = f"{{path: {folder}{', head: classification' if head else ''}}}"
    return ENCODER.replace("{hub: me/bert, head: classification}", model)


def test_an_encoder_with_all_that_goes_with_it_passes(write: Write) -> None:
    recipe = load(write(ENCODER))
    assert recipe.model.head == "classification"
    assert recipe.benchmark is not None


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (
            "train: [{adapter: glue, task: sst2}]",
            "train: [{adapter: builtin}]",
            "data.train.0.adapter: adapter builtin has no classes, and the model tells those of "
            "texts\n    Use a source that has them: glue or superglue.",
        ),
        (
            "train: [{adapter: glue, task: sst2}]",
            "train: [{adapter: glue, task: mnli}]",
            "data.train.0.adapter: its classes are entailment, neutral, contradiction, and the "
            "first source of the data has negative, positive\n    Use sources of one task.",
        ),
        (
            "source: {adapter: glue, task: sst2}",
            "source: {adapter: glue, task: rte}",
            "evaluation.tasks.2.source.adapter: its classes are entailment, not_entailment",
        ),
        (
            "{task: divergence}",
            "{task: divergence, source: {adapter: wikitext}}",
            "evaluation.tasks.1.task: task divergence is for models of language, and the model "
            "tells the classes of texts",
        ),
        (
            "{task: divergence}",
            "{task: choices, source: {adapter: glue, task: sst2}}",
            "evaluation.tasks.1.task: task choices is for models of language",
        ),
        (
            ", head: classification",
            "",
            "evaluation.tasks.0.task: classification is for models that tell classes, and the "
            "model predicts tokens\n    Use the task choices; or",
        ),
        ("max_length: 128", "packing: true", "data.packing: packing is about chats"),
        ("max_length: 128", "mask_prompt: false", "data.mask_prompt: mask_prompt is about chats"),
        (
            "stage: qat",
            "{stage: qat, distill: true}",
            "steps.1.distill: compares predictions of tokens, and the model tells the classes",
        ),
        (
            "target_bits: 6",
            "max_latency_ms: 6",
            "steps.2.max_latency_ms: is the time of a token that follows others",
        ),
        (
            "input: qat}",
            "input: qat, format: openvino}",
            "steps.3.format: openvino is for models of language",
        ),
        ("hub: me/bert", "tiny: {}", "a head is for an encoder of path or hub, and this is tiny"),
    ],
)
def test_what_does_not_go_with_an_encoder_is_refused_before_work_starts(
    write: Write, complaints: Complaints, old: str, new: str, said: str
) -> None:
    assert old in ENCODER
    assert said in complaints(write(ENCODER.replace(old, new)))


def test_a_directory_is_looked_at(
    write: Write, complaints: Complaints, directory: Callable[..., Path]
) -> None:
    base = directory(model_type="bert", architectures=["BertForMaskedLM"])
    assert load(write(local(base, head=True))).model.path == base
    llama = directory(model_type="llama", architectures=["LlamaForCausalLM"])
    said = complaints(write(local(llama, head=True)))
    assert "model.path: a llama is no encoder with a head for sequences, as BERT is" in said


def test_a_directory_with_a_head_needs_none(
    write: Write, complaints: Complaints, directory: Callable[..., Path]
) -> None:
    named = {"id2label": {"0": "NEGATIVE", "1": "POSITIVE"}}
    kind = {"model_type": "bert", "architectures": ["BertForSequenceClassification"]}
    assert load(write(local(directory(**kind, **named), head=False))).model.head is None
    other = directory(**kind, id2label={"0": "no", "1": "yes"})
    said = complaints(write(local(other, head=False)))
    assert "its classes are negative, positive, and the model tells no, yes" in said
    assert "Add `head: classification` below `model`" in said
    assert load(write(local(other, head=True))).model.head is not None


def test_a_scheme_is_held_to_the_layers_of_the_encoder(
    write: Write, complaints: Complaints, directory: Callable[..., Path]
) -> None:
    folder = directory(model_type="bert", architectures=["BertModel"], hidden_size=48)
    text = local(folder, head=True).replace("scheme: w8a8", "scheme: w4a16-g32")
    assert "48 input features of layer 'bert.encoder.layer.0.attention" in complaints(write(text))
