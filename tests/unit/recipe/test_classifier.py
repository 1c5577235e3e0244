from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from quantship.data import digits
from quantship.recipe import load

Write = Callable[..., Path]
Complaints = Callable[..., str]
CLASSIFIER = """\
model: {mlp: {sizes: [784, 64, 10]}}
data: {train: [{adapter: digits}], eval: [{adapter: digits, split: test}]}
scheme: w8a8
steps:
  - stage: finetune
  - stage: qat
benchmark: null
"""


@pytest.fixture(autouse=True)
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pass a check wherever scikit-learn is missing: nothing here reads an image."""
    monkeypatch.setattr(digits, "find_spec", lambda name: True)


def test_a_classifier_of_samples_passes(write: Write) -> None:
    recipe = load(write(CLASSIFIER))
    assert recipe.model.mlp is not None
    assert recipe.model.mlp.sizes == (784, 64, 10)


def test_a_classifier_can_be_exported_and_benchmarked(write: Write) -> None:
    asked = CLASSIFIER.replace("benchmark: null", "  - stage: export")
    recipe = load(write(asked))
    assert [step.stage for step in recipe.steps] == ["finetune", "qat", "export"]
    assert recipe.benchmark is not None


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (
            "eval: [{adapter: digits, split: test}]",
            "eval: [{adapter: builtin}]",
            "data.eval.0.adapter: adapter builtin reads text, and the model classifies samples\n"
            "    Use a source of samples: digits.",
        ),
        (
            "{mlp: {sizes: [784, 64, 10]}}",
            "{tiny: {}}",
            "data.train.0.adapter: adapter digits reads samples to classify, and the model reads",
        ),
        (
            "{mlp: {sizes: [784, 64, 10]}}",
            "me/model",
            "data.train.0.adapter: adapter digits reads samples to classify, and the model reads",
        ),
        ("[784, 64, 10]", "[64, 10]", "784 features and 10 classes, and the model's sizes go from"),
        ("[784, 64, 10]", "[784, 64, 9]", "the model's sizes go from 784 to 9"),
        ("[784, 64, 10]", "[784]", "model.mlp.sizes"),
        (
            "stage: qat",
            "{stage: qat, distill: true}",
            "steps.1.distill: compares predictions of tokens",
        ),
        (
            "stage: qat",
            "stage: qat\n  - {stage: export, format: openvino}",
            "steps.2.format: openvino is for models of language",
        ),
        ("eval: [", "packing: true, eval: [", "data.packing: packing is about text"),
        ("eval: [", "max_length: 9, eval: [", "data.max_length: max_length is about text"),
        ("scheme: w8a8", "scheme: w4a8", "784 input features of layer 'layers.0' cannot be cut"),
    ],
)
def test_what_does_not_go_together_is_refused_before_work_starts(
    write: Write, complaints: Complaints, old: str, new: str, said: str
) -> None:
    assert old in CLASSIFIER
    assert said in complaints(write(CLASSIFIER.replace(old, new)))


def test_groups_that_divide_the_widths_pass(write: Write) -> None:
    own = "schemes: {mine: {weight: {bits: 4, group_size: 16}}}\nscheme: mine"
    assert load(write(CLASSIFIER.replace("scheme: w8a8", own))).scheme == "mine"


def test_layers_of_a_classifier_have_names_for_overrides(
    write: Write, complaints: Complaints
) -> None:
    own = "schemes: {mine: {base: w8a8, overrides: [{layers: LAYER, weight: float}]}}\nscheme: mine"
    text = CLASSIFIER.replace("scheme: w8a8", own)
    assert load(write(text.replace("LAYER", "layers.1"))).scheme == "mine"
    assert "'lm_head' of scheme 'mine' matches no layer" in complaints(
        write(text.replace("LAYER", "lm_head"))
    )


def test_a_classifier_in_a_directory_is_one(
    write: Write, complaints: Complaints, tmp_path: Path
) -> None:
    folder = tmp_path / "classifier"
    folder.mkdir()
    config = {"model_type": "quantship_mlp", "sizes": [784, 64, 10], "architectures": ["Mlp"]}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "model.safetensors").touch()
    text = CLASSIFIER.replace("{mlp: {sizes: [784, 64, 10]}}", str(folder))
    assert load(write(text)).model.path == folder
    text = text.replace("{adapter: digits}", "{adapter: builtin}")
    assert "adapter builtin reads text" in complaints(write(text))
    text = text.replace("scheme: w8a8", "scheme: w4a8")
    assert "784 input features of layer 'layers.0'" in complaints(write(text))


def test_without_scikit_learn_the_extra_is_named(
    write: Write, complaints: Complaints, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(digits, "find_spec", lambda name: None)
    said = complaints(write(CLASSIFIER))
    assert "data.train.0.adapter: adapter digits reads images of scikit-learn" in said
    assert "pip install 'quantship[examples]'" in said
