from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from quantship import plan as planning
from quantship.errors import RecipeError
from quantship.job import Plan
from quantship.recipe import load

RECIPE = """\
model: {tiny: {}}
scheme: w8a8
data:
  eval: [{adapter: builtin, split: eval, num_examples: 8}]
steps:
  - {stage: quantize, name: ptq}
  - {stage: export, input: [ptq]}
evaluation:
  tasks:
    - {task: perplexity, name: questions, source: {adapter: builtin, num_examples: 4}}
    - {task: divergence, models: [ptq-onnx, model]}
"""

Planner = Callable[..., Plan]


@pytest.fixture
def plan(tmp_path: Path) -> Planner:
    """Plan the recipe, changed by ``KEY=VALUE`` settings."""
    path = tmp_path / "recipe.yaml"
    path.write_text(RECIPE)

    def plan(*overrides: str) -> Plan:
        return planning.make(load(path, overrides=overrides), download=False)

    return plan


def fingerprints(plan: Plan) -> dict[str, str]:
    return {node.name: node.fingerprint for node in plan.nodes if node.stage == "task"}


def test_a_task_is_a_job_for_each_of_its_models(plan: Planner) -> None:
    assert list(fingerprints(plan())) == [
        "questions of model",
        "questions of ptq",
        "questions of ptq-onnx",
        "divergence of ptq-onnx",
    ]


def test_what_is_compared_with_the_float_model_is_not_that_model(plan: Planner) -> None:
    jobs = plan()
    assert jobs["divergence of ptq-onnx"].inputs["reference"] == "model"


def test_a_name_changes_no_result_and_options_do(plan: Planner) -> None:
    before = fingerprints(plan())
    renamed = fingerprints(plan("evaluation.tasks.0.name=other"))
    assert renamed["other of ptq"] == before["questions of ptq"]
    fewer = fingerprints(plan("evaluation.tasks.0.limit=2"))
    assert fewer["questions of ptq"] != before["questions of ptq"]
    assert fewer["divergence of ptq-onnx"] == before["divergence of ptq-onnx"]


def test_where_a_file_lies_changes_no_result_and_its_content_does(
    plan: Planner, tmp_path: Path
) -> None:
    def planned(name: str, text: str) -> str:
        (tmp_path / name).write_text(text)
        source = f"{{adapter: wikitext, path: {tmp_path / name}}}"
        return fingerprints(plan(f"evaluation.tasks.0.source={source}"))["questions of ptq"]

    assert planned("a.txt", " = A = \n One . \n") == planned("b.txt", " = A = \n One . \n")
    assert planned("a.txt", " = A = \n One . \n") != planned("a.txt", " = A = \n Two . \n")


def test_an_unknown_model_and_a_name_twice_are_found(plan: Planner) -> None:
    with pytest.raises(RecipeError, match="no model is called 'ptq-onx'") as raised:
        plan(
            "evaluation.tasks.1.models.0=ptq-onx",
            "evaluation.tasks.1.name=questions",
        )
    assert "a second task is called 'questions'" in str(raised.value)


def test_a_missing_file_of_a_task_is_found_before_work(plan: Planner) -> None:
    with pytest.raises(RecipeError, match="no such file: nowhere"):
        plan("evaluation.tasks.0.source={adapter: wikitext, path: nowhere.txt}")
