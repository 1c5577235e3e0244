from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError
from ruamel.yaml import YAML

from quantship.algorithms.table import ALGORITHMS
from quantship.data import digits
from quantship.errors import RecipeError
from quantship.recipe import Recipe, load
from quantship.recipe.keys import NAME, annotated, choices, held, models, walk
from quantship.recipe.language import Distillation, FinetuneStep, QatStep, Teacher

HUB = Teacher(hub="gpt2")

# Holds every key there is: each list has one item of each kind, so that `--set` can reach all.
EVERYTHING = """\
name: everything
model: {tiny: {}}
data:
  train: &sources
    - {adapter: alpaca, path: THIS}
    - {adapter: builtin}
    - {adapter: chat, path: THIS}
    - {adapter: glue, task: sst2, path: THIS}
    - {adapter: gsm8k, path: THIS}
    - {adapter: hub, dataset: me/it, prompt: q, completion: a}
    - {adapter: mbpp, path: THIS}
    - {adapter: sharegpt, path: THIS}
    - {adapter: squad, path: THIS}
    - {adapter: superglue, task: boolq, path: THIS}
    - {adapter: wikitext, path: THIS}
  eval: *sources
schemes:
  static: {base: w8a8-static}
  weights:
    base: w8a16
    weight: &whole {bits: 8, granularity: per_channel, symmetric: true, scale_dtype: float32}
    activation: float
    embedding: *whole
    head: *whole
    overrides: [{layers: "*.0.*", weight: *whole}]
  inputs:
    weight: *whole
    activation: &input {granularity: per_tensor, ranges: dynamic, symmetric: false}
    overrides: [{layers: "*.0.*", weight: *whole, activation: *input}]
steps:
  - {stage: finetune, input: model}
  - stage: qat
    input: model
    scheme: w8a8-static
    scales: fixed
    range: percentile
    calibration: {range: percentile}
    lora: {}
    distill: {teacher: {hub: me/it}}
  - stage: quantize
    input: model
    scheme: w8a8-static
    range: percentile
    calibration: {range: percentile}
  - stage: quantize
    name: gptq
    input: model
    scheme: w8a8-static
    algorithm: {kind: gptq}
  - stage: quantize
    name: awq
    input: model
    scheme: w8a8-static
    algorithm: {kind: awq}
  - stage: quantize
    name: hqq
    input: model
    scheme: w8a8-static
    algorithm: {kind: hqq}
  - stage: quantize
    name: smoothquant
    input: model
    scheme: w8a8-static
    algorithm: {kind: smoothquant}
  - stage: search
    input: model
    scheme: w8a8
    candidates: [w8a8, w4a8]
    target_bits: 6
    range: percentile
  - {stage: export, input: model}
evaluation:
  tasks:
    - {task: choices, source: {adapter: glue, task: sst2, path: THIS}}
    - {task: divergence}
    - {task: generations, prompts: [Hello.]}
    - task: gsm8k
      source: {adapter: gsm8k, path: THIS}
      shots_source: {adapter: gsm8k, path: THIS}
    - {task: mbpp, source: {adapter: mbpp, path: THIS}}
    - {task: perplexity}
    - {task: squad, source: {adapter: squad, path: THIS}}
push: {repo: me/it, models: [qat]}
tracking: {report_to: [tensorboard]}
"""
# Apart, because what lm-eval knows takes a second to find out.
OF_LM_EVAL = """\
name: of-lm-eval
model: {tiny: {}}
data: {eval: [{adapter: builtin}]}
scheme: w8a8
steps: [{stage: quantize, name: finetune}]
evaluation: {tasks: [{task: lm_eval, run: hellaswag, name: asked}]}
"""
# What goes with no text: a model that classifies, and its samples.
CLASSIFYING = """\
name: classifying
model: {mlp: {sizes: [784, 8, 10]}}
data: {train: [{adapter: digits}], eval: [{adapter: digits}]}
steps: [{stage: finetune}]
benchmark: null
"""
NUMBERS = ["7", "2", "1", "0.25", "75", "256", "2048"]
WORDS = [
    "true",
    "false",
    "other",
    "me/other",
    "finetune",
    "[finetune]",
    "[q_proj]",
    "[784, 9, 10]",
    "[w4a8, w8a8]",
    "static",
    "OTHER",
]
SPECIAL = {
    # One of several that exclude each other, or with a single value: changed by other tests.
    "model.path",
    "model.hub",
    "steps.finetune.input",
    "steps.search.max_bytes",
    "steps.search.max_latency_ms",
    "steps.search.max_perplexity_increase",
    "steps.qat.distill.teacher.step",
    "steps.qat.distill.teacher.path",
    "model.head",
    "evaluation.tasks.generations.source",
    "evaluation.tasks.lm_eval.include_path",
    "evaluation.tasks.lm_eval.run",
    "tracking.report_to",  # what else may stand there is what else is installed
    *(key for key in walk(Recipe) if key.endswith((".activation.bits", ".group_size"))),
    *(f"data.{part}.hub.{column}" for part in ("train", "eval") for column in ("messages", "text")),
}
# Gates are changed by test_gates, the task of classifiers by test_encoder; a task's sources are
# those of `data`.
ELSEWHERE = re.compile(r"gates\.|evaluation\.tasks\.(classification\.|\w+\.(shots_)?source\.)")


def leaves() -> list[str]:
    keys = list(walk(Recipe))
    tags = {key for key in keys if key.rpartition(".")[2] in ("stage", "adapter", "kind")}
    tags |= {key for key in keys if re.fullmatch(r"evaluation\.tasks\.\w+\.task", key)}
    inner = {key.rpartition(".")[0] for key in keys}
    mine = [key for key in keys if not ELSEWHERE.match(key)]
    return [key for key in mine if key not in inner | tags | SPECIAL]


def choices_at(key: str) -> list[str]:
    here: Any = Recipe
    for part in key.split("."):
        known = models(held(here))
        if part == NAME:
            here = held(here)
        else:
            here = annotated(known[""].model_fields[part]) if "" in known else known[part]
    return choices(here)


def written(key: str) -> str:
    """What a key of the language is called in the recipe that holds every key."""
    scheme = "inputs" if ".activation" in key else "weights"
    for kind in ALGORITHMS:  # each has a step that is called so
        key = key.replace(f"quantize.algorithm.{kind}", f"{kind}.algorithm")
    return key.replace(NAME, scheme).replace(".overrides.", ".overrides.0.")


def _tag(item: dict[str, Any]) -> Any:
    return next((item[key] for key in ("stage", "adapter", "task") if key in item), None)


def flat(value: Any, prefix: str = "") -> dict[str, Any]:
    items = value.items() if isinstance(value, dict) else enumerate(value)
    found: dict[str, Any] = {}
    for key, item in items:
        called = _tag(item) or key if isinstance(item, dict) else key
        if isinstance(item, dict) and item.get("name") in ALGORITHMS:
            called = item["name"]
        path = f"{prefix}.{called}".lstrip(".")
        found |= flat(item, path) if isinstance(item, dict | list) else {path: item}
    return found


@pytest.fixture
def everything(tmp_path: Path) -> Path:
    """A recipe that holds every key of the language."""
    path, other = tmp_path / "everything.yaml", tmp_path / "other.txt"
    path.write_text(EVERYTHING.replace("THIS", str(path)))
    other.touch()
    return path


@pytest.fixture
def of_lm_eval(tmp_path: Path) -> Path:
    """A recipe that holds the keys of that task."""
    path = tmp_path / "of-lm-eval.yaml"
    path.write_text(OF_LM_EVAL)
    return path


@pytest.fixture
def classifying(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A recipe that holds the keys that go with no text, wherever scikit-learn is missing too."""
    monkeypatch.setattr(digits, "find_spec", lambda name: True)
    path = tmp_path / "classifying.yaml"
    path.write_text(CLASSIFYING)
    return path


def test_every_field_is_documented() -> None:
    def visit(model: type[BaseModel]) -> None:
        assert model.__doc__, model
        for name, field in model.model_fields.items():
            assert field.description or name in ("stage", "adapter", "kind", "task"), (model, name)
            for below in models(held(annotated(field))).values():
                visit(below)

    visit(Recipe)


@pytest.mark.parametrize("key", leaves())
def test_any_option_can_be_changed_and_changes_the_dump_there_only(
    everything: Path, classifying: Path, of_lm_eval: Path, key: str
) -> None:
    of_samples = key.startswith("model.mlp") or ".digits." in key
    recipe_file = classifying if of_samples else everything
    recipe_file = of_lm_eval if ".lm_eval." in key else recipe_file
    # What is pushed has to be a step's name, which is about to change.
    rest = ["push=null"] if key.endswith(".name") else []
    before = flat(load(recipe_file, overrides=rest).model_dump(mode="json"))
    other, place = str(everything.with_name("other.txt")), written(key)
    for value in [*choices_at(key), *NUMBERS, *WORDS]:
        setting = value.replace("OTHER", other)
        try:
            recipe = load(recipe_file, overrides=[*rest, f"{place}={setting}"])
        except RecipeError:
            continue
        after = flat(recipe.model_dump(mode="json"))
        changed = {k for k in before.keys() | after.keys() if before.get(k) != after.get(k)}
        if changed:
            assert all(k == place or k.startswith(f"{place}.") for k in changed)
            return
    pytest.fail(f"nothing else can stand at {key}")


def test_a_recipe_cannot_be_changed(everything: Path) -> None:
    recipe = load(everything)
    with pytest.raises(ValidationError, match="frozen"):
        recipe.seed = 3
    with pytest.raises(ValidationError, match="frozen"):
        recipe.steps[0].learning_rate = 3.0  # type: ignore[union-attr]


def test_the_dump_is_the_recipe(everything: Path) -> None:
    recipe = load(everything)
    assert Recipe.model_validate(recipe.model_dump(mode="json")) == recipe
    assert Recipe.model_validate_json(recipe.model_dump_json()) == recipe


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("true", Distillation()),
        ("{}", Distillation()),
        ("false", None),
        ("null", None),
        ("{teacher: finetune}", Distillation(teacher=Teacher(step="finetune"))),
        ("{teacher: model}", Distillation(teacher=Teacher(step="model"))),
        ("{teacher: me/it}", Distillation(teacher=Teacher(hub="me/it"))),
        ("{teacher: GPT}", Distillation(teacher=Teacher(hub="GPT"))),
        ("{teacher: ./here}", Distillation(teacher=Teacher(path=Path("here")))),
        ("{teacher: {hub: gpt2}, weight: 0.25}", Distillation(teacher=HUB, weight=0.25)),
    ],
)
def test_distillation_is_one_switch_or_its_options(
    written: str, meant: Distillation | None
) -> None:
    value = YAML(typ="safe", pure=True).load(written)
    assert QatStep(stage="qat", distill=value).distill == meant


def test_a_model_may_be_one_word(write: Callable[..., Path]) -> None:
    recipe = load(write(), overrides=["model=HuggingFaceTB/SmolLM2-135M-Instruct"])
    assert recipe.model.hub == "HuggingFaceTB/SmolLM2-135M-Instruct"
    assert recipe.model.revision == "main"


@pytest.mark.parametrize("name", ["qat", "int8-qat", "8da4w-qat", "2bit"])
def test_a_step_may_be_called(name: str) -> None:
    assert FinetuneStep(stage="finetune", name=name).name == name


@pytest.mark.parametrize("name", ["", "8", "08", "8-bit", "-qat", "_qat", "QAT", "qat.w8a8"])
def test_a_step_may_not_be_called(name: str) -> None:
    with pytest.raises(ValidationError, match="name"):
        FinetuneStep(stage="finetune", name=name)
