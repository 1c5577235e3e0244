from __future__ import annotations

from pathlib import Path

import pytest

from quantship.errors import RecipeError, UsageError
from quantship.recipe import Recipe, consent, load

RECIPE = """\
model: {tiny: {}}
data: {eval: [{adapter: builtin}]}
steps: [{stage: quantize, scheme: w8a8}]
evaluation:
  tasks:
    - {task: perplexity}
    - TASK
"""
MBPP = "{task: mbpp, name: python, source: {adapter: mbpp, path: problems.jsonl}}"
HARNESS = "{task: lm_eval, run: quiz, include_path: mine}"
QUIZ = """\
task: quiz
dataset_path: json
output_type: multiple_choice
doc_to_text: "{{question}}"
metric_list: [{metric: acc}]
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current directory, with task definitions in ``mine``."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "quiz.yaml").write_text(QUIZ)
    (tmp_path / "problems.jsonl").write_text("{}\n")
    return tmp_path


def recipe(folder: Path, task: str) -> Recipe:
    path = folder / "my.yaml"
    path.write_text(RECIPE.replace("TASK", task))
    return load(path)


def test_what_is_data_needs_no_leave(folder: Path) -> None:
    pytest.importorskip("lm_eval")
    plain = recipe(folder, HARNESS)
    assert consent.needed(plain) == []
    consent.require(plain, allowed=False)


@pytest.mark.parametrize(
    ("added", "found"),
    [
        ("process_docs: !function utils.clean", "!function utils.clean"),
        ("filter_list: [{name: a, filter: [{function: !function a.B}]}]", "!function a.B"),
        ("class: !function tasks.Mine", "!function tasks.Mine"),
        ("include: deeper.inc", "!function utils.deep"),
        ("metric_list: [{metric: some/metric}]", "metric some/metric"),
        ("metric_list: [{metric: acc, hf_evaluate: true}]", "metric acc"),
        ("dataset_path: pandas", "pickled data"),
    ],
)
def test_definitions_that_are_code_are_named(folder: Path, added: str, found: str) -> None:
    pytest.importorskip("lm_eval")
    (folder / "mine" / "deeper.inc").write_text("doc_to_choice: !function utils.deep\n")
    kept = [line for line in QUIZ.splitlines() if line.split(":")[0] != added.split(":")[0]]
    (folder / "mine" / "quiz.yaml").write_text("\n".join([*kept, added]))
    (sentence,) = consent.needed(recipe(folder, HARNESS))
    assert sentence.startswith("task 'quiz' runs code that mine names (quiz.yaml: ")
    assert found in sentence


def test_code_of_another_task_beside_it_does_not_run(folder: Path) -> None:
    pytest.importorskip("lm_eval")
    other = QUIZ.replace("quiz", "other") + "process_docs: !function utils.clean\n"
    (folder / "mine" / "other.yaml").write_text(other)
    assert consent.needed(recipe(folder, HARNESS)) == []


def test_running_what_models_write_asks_for_leave(folder: Path) -> None:
    asking = recipe(folder, MBPP)
    with pytest.raises(UsageError, match=r"task 'python' runs the Python .*\n.*--allow-code"):
        consent.require(asking, allowed=False)
    consent.require(asking, allowed=True)


@pytest.mark.parametrize("key", ["allow_code", "runs_code", "evaluation.allow_code"])
def test_no_recipe_can_allow_it(folder: Path, key: str) -> None:
    recipe(folder, MBPP)
    with pytest.raises(RecipeError):
        load(folder / "my.yaml", overrides=[f"{key}=true"])


def test_nothing_is_made_before_it_is_allowed(folder: Path) -> None:
    from quantship import pipeline

    with pytest.raises(UsageError, match="--allow-code"):
        pipeline.run(recipe(folder, MBPP), folder / "artifacts")
    assert not (folder / "artifacts").exists()
