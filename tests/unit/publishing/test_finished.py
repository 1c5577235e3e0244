from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from quantship.errors import GateError, UsageError
from quantship.publishing import asked
from quantship.publishing.finished import Finished, open_run, require_gates, scheme_of
from quantship.quant.scheme import SCHEMES
from quantship.recipe import load
from quantship.recipe.language import Push
from quantship.reporting.evidence_schema import Gate

Usual = Callable[..., Finished]
RECIPE = """\
name: it
model: {tiny: {}}
data: {eval: [{adapter: builtin}]}
steps: [{stage: quantize, scheme: w8a8}]
push: {repo: me/it, models: [quantize]}
"""


def gate(passed: bool, reason: str) -> Gate:
    return Gate(
        model="qat",
        metric="perplexity",
        over=None,
        rule="at most 2",
        limit=2.0,
        value=3.0,
        measured="3",
        bound=None,
        confidence=None,
        passed=passed,
        reason=reason,
    )


def test_a_run_is_read_back_as_it_was(usual: Usual) -> None:
    run = usual()
    again = open_run(run.directory)
    assert again == run
    assert again.base_directory() == run.model.path
    assert scheme_of(again.path("qat")) == SCHEMES["w8a8"]


def test_what_is_no_run_is_named(tmp_path: Path, usual: Usual) -> None:
    with pytest.raises(UsageError, match="holds no finished run"):
        open_run(tmp_path)
    run = usual()
    (run.directory / "report.json").write_text('{"name": "it"}')
    with pytest.raises(UsageError, match=r"cannot be read .*run its recipe again"):
        open_run(run.directory)


def test_every_failed_gate_is_told_and_passed_ones_let_it_through(usual: Usual) -> None:
    run = usual(gates=[gate(True, "fine"), gate(False, "too much"), gate(False, "too little")])
    with pytest.raises(GateError) as caught:
        require_gates(run.report)
    assert "too much" in str(caught.value)
    assert "too little" in str(caught.value)
    assert "fine" not in str(caught.value)
    require_gates(run.report.model_copy(update={"gates": [gate(True, "fine")]}))


@pytest.fixture
def recipe(tmp_path: Path, usual: Usual) -> Path:
    """A recipe whose run is there."""
    path = tmp_path / "it.yaml"
    path.write_text(RECIPE)
    run = usual(recipe=load(path).model_dump(mode="json"))
    run.directory.joinpath("report.json").write_text(run.report.model_dump_json())
    return path


def find(recipe: Path, *overrides: str) -> asked.Asked:
    return asked.find(str(recipe), recipe.parent, overrides, None)


def test_a_recipe_stands_for_its_run_and_what_it_says_of_pushing_now(recipe: Path) -> None:
    found = find(recipe, "push.repo=me/other", "push.tag=v1", "description=new")
    assert found.run.directory == recipe.parent / "runs" / "it"
    assert found.push == Push(repo="me/other", models=("quantize",), tag="v1")


def test_a_recipe_of_another_run_is_refused(recipe: Path) -> None:
    with pytest.raises(UsageError, match=r"another recipe \(seed, steps\)"):
        find(recipe, "seed=3", "steps.0.scheme=w8a16")


def test_a_directory_stands_for_itself_with_its_recipes_push(recipe: Path) -> None:
    directory = str(recipe.parent / "runs" / "it")
    found = asked.find(directory, Path("elsewhere"), (), None)
    assert found.push == Push(repo="me/it", models=("quantize",))
    with pytest.raises(UsageError, match="--set"):
        asked.find(directory, Path("elsewhere"), ("seed=1",), None)


def test_the_command_line_comes_before_the_recipe(recipe: Path) -> None:
    found = find(recipe)
    assert asked.options(found, None, None) == found.push
    given = asked.options(found, "me/else", ["qat", "qat-onnx"])
    assert (given.repo, given.models) == ("me/else", ("qat", "qat-onnx"))
    assert asked.options(found, None, None, "mit").license == "mit"
    with pytest.raises(UsageError, match="is no repository"):
        asked.options(found, "nowhere", None)
    with pytest.raises(UsageError, match="--license My own is no license"):
        asked.options(found, None, None, "My own")


@pytest.mark.parametrize(
    ("repo", "models", "missing"),
    [
        (None, None, "--repo and --model"),
        ("me/it", None, "give --model"),
        (None, ["qat"], "--repo"),
    ],
)
def test_what_nobody_says_is_asked_for(
    usual: Usual, repo: str | None, models: list[str] | None, missing: str
) -> None:
    run = usual()
    found: Any = asked.Asked(run, run.push)
    with pytest.raises(UsageError, match=missing):
        asked.options(found, repo, models)
