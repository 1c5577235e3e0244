from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from quantship.errors import RecipeError
from quantship.recipe import check, load

Write = Callable[..., Path]
Complaints = Callable[..., str]


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("stage: qat", "stage: qat\n    lr: 1", "recipe.yaml:9: steps.1.lr: unknown key"),
        ("{tiny: {}}", "{tiny: {hiden_size: 4}}", "Did you mean hidden_size? Allowed here: hidden"),
        ("scheme: w8a8", "learning_rate: 1", "elsewhere: steps.finetune.learning_rate, steps.qat"),
        ("stage: qat", "stage: qta", "steps.1.stage: unknown stage 'qta'\n    Did you mean qat?"),
        ("stage: qat", "name: qat", "recipe.yaml:8: steps.1.stage: is missing"),
        ("  - stage: qat", "  - qat", "steps.1: expected mapping with stage: finetune | qat"),
        ("scheme: w8a8", "scheme: w8a9", "scheme: unknown scheme 'w8a9'"),
        ("scheme: w8a8", "scheme: w8a9", "Did you mean w8a8"),
        ("scheme: w8a8", "scheme: 8", "scheme: expected w2a16-g32 | "),
        ("builtin}", "builtn}", "data.train.0.adapter: unknown adapter 'builtn'"),
        (
            "builtin}",
            "builtin, limit: 0}",
            "expected whole number, at least 1, or null, got the nu",
        ),
        (
            "scheme: w8a8",
            "seed: 1.5",
            "seed: expected whole number, at least 0, got the number 1.5",
        ),
        ("scheme: w8a8", "seed: fast", "seed: expected whole number, at least 0, got the text 'fa"),
        ("scheme: w8a8", "seed: true", "seed: expected a number, got true"),
        ("scheme: w8a8", "seed:", "seed: expected whole number, at least 0, got nothing"),
        ("scheme: w8a8", "name: 5", "name: expected text, got the number 5\n    Put it in quotes"),
        ("scheme: w8a8", "name: A B", "the text 'A B' is not a valid value"),
        (
            "stage: qat",
            "stage: qat\n    precision: int8",
            "expected auto | float32 | bfloat16, got",
        ),
        (
            "stage: qat",
            "stage: qat\n    distill: {temperature: 0}",
            "recipe.yaml:9: steps.1.distill.temperature: expected number, above 0, got the nu",
        ),
        (
            "stage: qat",
            "stage: qat\n    distill: {weight: true}",
            "steps.1.distill.weight: expected a number, got true",
        ),
        (
            "stage: qat",
            "stage: qat\n    distill: yes",
            "recipe.yaml:9: steps.1.distill: expected mapping, or null, got the text 'yes'",
        ),
        (
            "stage: qat",
            "stage: qat\n    distill:\n      teacher: {step: finetune, path: .}",
            "recipe.yaml:10: steps.1.distill.teacher: give exactly one of step, path, hub; got",
        ),
        (
            "stage: qat",
            "stage: qat\n    distill:\n      teacher: a/b/c",
            "recipe.yaml:10: steps.1.distill.teacher.hub: the text 'a/b/c' is not a valid value",
        ),
        ("steps:", "steps: []\nx:", "steps: needs at least one item"),
        (
            "stage: qat",
            "stage: search\n    candidates: [w8a8]",
            "recipe.yaml:9: steps.1.candidates: needs at least 2 items, got 1 of them",
        ),
        ("steps:", "steps: 5\nx:", "steps: expected list of: mapping with stage"),
        ("  train: [{adapter: builtin}]", "  eval: 3", "recipe.yaml:5: data.eval: duplicate key"),
        ("{tiny: {}}", "{tiny: {}, hub: a/b}", "model: give exactly one of path, hub, tiny, mlp"),
        ("{tiny: {}}", "{}", "model: give exactly one of path, hub, tiny, mlp; got none"),
        ("{tiny: {}}", "5", "recipe.yaml:1: model: expected mapping, got the number 5"),
        ("{tiny: {}}", "a/b/c", "model.hub: the text 'a/b/c' is not a valid value"),
        ("{tiny: {}}", "{tiny: {num_heads: 3}}", "num_heads must divide hidden_size"),
        ("model: {tiny: {}}", "seed: 0", "recipe.yaml:1: model: is missing"),
        ("stage: qat", "stage: qat\n    epochs: -1", "expected number, above 0, got the number -1"),
        (
            "{tiny: {}}",
            "~no-such-user/x",
            "'~no-such-user/x' starts in the home folder of an unknown user",
        ),
    ],
)
def test_what_is_wrong_is_said_in_plain_words(
    write: Write, complaints: Complaints, old: str, new: str, said: str
) -> None:
    text = write().read_text()
    assert old in text
    assert said in complaints(write(text.replace(old, new, 1)))


def test_every_problem_has_a_line_and_a_remedy(write: Write) -> None:
    text = write().read_text().replace("w8a8", "w9").replace("qat", "qat\n    lr: 1") + "x: 1\n"
    with pytest.raises(RecipeError) as caught:
        load(write(text))
    assert len(caught.value.problems) == 3
    assert all(problem.line and problem.remedy for problem in caught.value.problems)


def test_errors_of_every_kind_come_together_in_page_order(
    write: Write, complaints: Complaints
) -> None:
    said = complaints(
        write("""\
model: ./no-such-folder
data:
  train: [{adapter: gsm8k, path: no-such-file.jsonl}]
  eval: [{adapter: builtin, limit: many}]
  max_length: 12
  max_length: 13
steps:
  - {stage: finetune, lr: 1}
  - {stage: quantize, input: nothing}
  - {stage: export, lowering: integer}
push: {repo: me/it, models: [nobody]}
""")
    )
    places = [line.split(": ")[1] for line in said.splitlines() if not line.startswith(" ")]
    assert places == [
        "model.path",
        "data.train.0.path",
        "data.eval.0.limit",
        "data.max_length",
        "steps.0.lr",
        "steps.1.input",
        "steps.1.scheme",
        "push.models.0",
    ]


def test_a_broken_item_does_not_make_its_list_look_empty(
    write: Write, complaints: Complaints
) -> None:
    text = write().read_text().replace("split: eval", "limit: 0")
    assert "needs at least one item" not in complaints(write(text))


def test_check_tries_every_profile_and_load_only_the_chosen(write: Write) -> None:
    profiles = "profiles:\n  good: {seed: 1}\n  bad: {sed: 1}\n  worse: {data.max_length: x}\n"
    path = write(write().read_text() + profiles)
    assert load(path, profile="good").seed == 1
    with pytest.raises(RecipeError) as caught:
        check(path, profile="good")
    lines = {problem.line for problem in caught.value.problems}
    assert lines == {12, 13}


def test_check_returns_what_load_returns(write: Write) -> None:
    path = write(write().read_text() + "profiles: {smoke: {seed: 1}}\n")
    assert check(path) == load(path)
    assert check(path, profile="smoke", overrides=["scheme=w8a16"]) == load(
        path, profile="smoke", overrides=["scheme=w8a16"]
    )


def test_a_problem_that_all_profiles_share_is_told_once(write: Write) -> None:
    path = write("x: 1\n" + write().read_text() + "profiles: {a: {}, b: {}}\n")
    with pytest.raises(RecipeError) as caught:
        check(path)
    assert len(caught.value.problems) == 1


def test_loading_writes_nothing(write: Write, tmp_path: Path) -> None:
    path = write()
    check(path)
    assert list(tmp_path.rglob("*")) == [path]


def test_the_recipe_language_loads_without_the_heavy_libraries() -> None:
    heavy = {"torch", "transformers", "datasets", "onnxruntime", "onnx", "numpy", "torchao"}
    code = f"import sys, quantship.recipe; print({heavy!r} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
