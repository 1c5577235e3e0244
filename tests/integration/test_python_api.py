"""The same verbs from Python, with typed results."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import pytest

import quantship
from quantship.artifact import Artifact
from quantship.errors import QuantshipError, RecipeError, StageError
from quantship.pipeline import RunResult
from quantship.recipe import Recipe
from quantship.reporting.schema import ModelRow, Report


def test_check_returns_the_recipe_as_it_would_run(undisturbed: Any) -> None:
    recipe = quantship.check(undisturbed.recipe)
    assert isinstance(recipe, Recipe)
    assert recipe.name == "small"
    assert [step.name for step in recipe.steps] == ["finetune", "ptq", "qat", "export"]
    assert recipe.steps[2].input == "finetune"


def test_check_takes_settings_and_a_profile(undisturbed: Any) -> None:
    recipe = quantship.check(
        str(undisturbed.recipe), overrides=["seed=3", "steps.qat.scheme=w8a8"], profile="short"
    )
    assert recipe.seed == 3
    assert recipe.steps[0].model_dump()["max_steps"] == 3
    assert recipe.steps[2].model_dump()["scheme"] == "w8a8"


def test_check_raises_every_problem_and_makes_nothing(tmp_path: Path) -> None:
    recipe = tmp_path / "broken.yaml"
    recipe.write_text("model: {tiny: {}}\nsed: 1\nsteps: [{stage: finetun}]\n")
    with pytest.raises(RecipeError) as caught:
        quantship.check(recipe)
    problems = caught.value.problems
    assert {problem.key for problem in problems} >= {"sed", "data"}
    assert all(problem.file == recipe for problem in problems)
    with pytest.raises(RecipeError):
        quantship.run(recipe, artifacts=tmp_path / "artifacts")
    assert [path.name for path in tmp_path.iterdir()] == ["broken.yaml"]


def test_run_returns_the_report_and_where_the_models_are(runner: Any, undisturbed: Any) -> None:
    result = quantship.run(
        str(runner.recipe),
        overrides=["steps.3.input=[ptq]", "steps.qat.max_steps=2", "evaluation.limit=4"],
        profile="short",
        artifacts=str(runner.root),
    )
    assert isinstance(result, RunResult)
    assert isinstance(result.report, Report)
    assert result.report_dir == runner.root / "runs" / "small"
    assert (result.report_dir / "report.html").is_file()
    rows = result.report.models
    assert all(isinstance(row, ModelRow) for row in rows)
    assert [row.name for row in rows] == ["model", "finetune", "ptq", "qat", "ptq-onnx"]
    assert all(isinstance(made, Artifact) for made in result.artifacts.values())
    assert (result.artifacts["ptq-onnx"].path / "model.onnx").is_file()
    assert result.artifacts["finetune"].facts["training"]["num_steps"] == 3
    assert rows[0].metrics is not None
    assert 0 < rows[0].metrics.num_tokens < undisturbed.result.report.models[0].metrics.num_tokens


def test_artifacts_lie_in_the_current_directory_unless_told(
    runner: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    result = quantship.run(
        runner.recipe, overrides=["steps=[{stage: quantize, scheme: w8a8}]", "evaluation=null"]
    )
    assert result.report_dir == Path("artifacts/runs/small")
    assert (tmp_path / "artifacts" / "runs" / "small" / "report.json").is_file()
    (model, quantized) = result.report.models
    assert Path(quantized.path).parts[0] == Path(model.path).parts[0] == "steps"


def test_a_failure_is_an_exception_with_all_that_is_known(runner: Any) -> None:
    with pytest.raises(StageError) as caught:
        quantship.run(runner.recipe, overrides=["data.max_length=3"], artifacts=runner.root)
    assert isinstance(caught.value, QuantshipError)
    assert caught.value.step == "data"
    assert caught.value.partial is not None
    assert caught.value.partial.parent == runner.root / "steps"


def test_nothing_is_printed(
    runner: Any, capsys: pytest.CaptureFixture[str], undisturbed: Any
) -> None:
    """What the libraries warn of, when they are loaded, was said before."""
    overrides = ["steps=[{stage: quantize, scheme: w8a8}]", "evaluation.limit=2"]
    quantship.run(runner.recipe, overrides=overrides, artifacts=runner.root)
    assert capsys.readouterr() == ("", "")


def test_the_package_has_these_members_and_says_what_they_do() -> None:
    recipes = {"check", "run"}
    modules = {"prepare_qat", "convert", "quantize", "fold_batch_norms", "compare"}
    files = {"load", "save", "load_into", "export"}
    assert set(quantship.__all__) == recipes | modules | files | {"Comparison"}
    assert set(quantship.__all__) <= set(dir(quantship))
    for name in recipes | modules | files:
        verb = getattr(quantship, name)
        parameters = inspect.signature(verb).parameters
        assert all(parameter in verb.__doc__ for parameter in parameters)
        assert "Raises:" in verb.__doc__


def test_a_name_that_the_package_lacks_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'quantship' has no attribute 'quantise'"):
        quantship.quantise  # noqa: B018
