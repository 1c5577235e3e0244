"""What the README shows works as it is shown."""

from __future__ import annotations

import re
import shlex
import textwrap
from itertools import pairwise
from pathlib import Path
from typing import get_args

import pytest

import quantship
from quantship.algorithms.table import ALGORITHMS
from quantship.exporters.lowering import Lowering
from quantship.quant.scheme import SCHEMES
from quantship.recipe import explain
from quantship.tasks.table import TASKS


@pytest.fixture(scope="module")
def readme(repository: Path) -> str:
    return (repository / "README.md").read_text()


def blocks(readme: str, language: str) -> list[str]:
    fenced = re.findall(r"^```(\w*)\n(.*?)^```$", readme, re.MULTILINE | re.DOTALL)
    return [text for found, text in fenced if found == language]


def test_its_recipe_is_sound_in_every_profile(readme: str, tmp_path: Path) -> None:
    (text,) = blocks(readme, "yaml")
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    recipe = quantship.check(path)
    assert [step.stage for step in recipe.steps] == ["finetune", "quantize", "qat", "export"]
    smoke = quantship.check(path, profile="smoke")
    assert smoke.steps[0].model_dump()["max_steps"] == 20


def test_its_snippets_fit_into_its_recipe(readme: str, tmp_path: Path) -> None:
    (recipe,) = blocks(readme, "yaml")
    schemes, export, step, *_ = blocks(readme, "text")
    path = tmp_path / "recipe.yaml"
    path.write_text(recipe.replace("\nsteps:", f"\n{schemes}\nsteps:"))
    own = quantship.check(path, overrides=["scheme=mine"]).schemes["mine"]
    assert len(own.overrides) == 2
    qat = re.compile(r"^  - stage: qat\b.*\n(    .*\n)*", re.MULTILINE)
    exports = re.compile(r"^  - stage: export\b.*\n(    .*\n)*", re.MULTILINE)
    assert len(qat.findall(recipe)) == len(exports.findall(recipe)) == 1
    recipe = exports.sub(textwrap.indent(export, "  "), recipe)
    path.write_text(qat.sub(textwrap.indent(step, "  "), recipe))
    (found,) = [step for step in quantship.check(path).steps if step.stage == "qat"]
    assert found.scales == "learned"
    assert found.distill is not None
    assert found.lora is not None
    assert quantship.check(path).steps[-1].model_dump()["target"] == "x86-vnni"


@pytest.mark.parametrize(
    ("index", "names"),
    [
        (3, r"ptq"),
        (4, r"ptq-w(8a8|4a16-g32)-(rtn|gptq|awq-clip-false)-seed-[012]"),
        (5, r"ptq-mixed"),
    ],
)
def test_its_quantizations_fit_into_its_recipe(
    readme: str, tmp_path: Path, index: int, names: str
) -> None:
    (recipe,) = blocks(readme, "yaml")
    quantize = re.compile(r"^  - stage: quantize\b.*\n(    .*\n)*", re.MULTILINE)
    snippet = textwrap.indent(blocks(readme, "text")[index], "  ")
    path = tmp_path / "recipe.yaml"
    path.write_text(re.sub(r"\bptq,", "", quantize.sub(snippet, recipe)))
    steps = [step.name for step in quantship.check(path).steps if step.stage == "quantize"]
    assert len(steps) == (18 if index == 4 else 1)
    assert all(re.fullmatch(names, str(name)) for name in steps)


def test_its_evidence_and_its_push_fit_into_its_recipe(readme: str, tmp_path: Path) -> None:
    (recipe,) = blocks(readme, "yaml")
    evidence, push = (
        next(text for text in blocks(readme, "text") if text.startswith(key))
        for key in ("evaluation:", "push:")
    )
    path = tmp_path / "recipe.yaml"
    path.write_text(re.sub(r"^evaluation:\n  .*\n", evidence, recipe, flags=re.MULTILINE) + push)
    found = quantship.check(path)
    assert found.evaluation is not None
    assert len(found.evaluation.tasks) == 6
    assert [len(gate.limits) for gate in found.gates] == [2, 2]
    assert found.push is not None


def test_its_commands_exist(readme: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from typer.testing import CliRunner

    from quantship.cli import app

    monkeypatch.chdir(tmp_path)
    Path("recipe.yaml").write_text(blocks(readme, "yaml")[0])
    commands = [
        shlex.split(line, comments=True)
        for block in blocks(readme, "bash")
        for line in block.splitlines()
        if line.startswith("quantship ")
    ]
    assert len(commands) >= 6
    for _, verb, *arguments in commands:
        shown = CliRunner().invoke(app, [verb, "--help"])
        assert shown.exit_code == 0
        for option in (word for word in arguments if word.startswith("--")):
            assert option in shown.output
        if verb in ("check", "explain", "schema"):
            assert CliRunner().invoke(app, [verb, *arguments]).exit_code == 0
        overrides = [b for a, b in pairwise(arguments) if a == "--set"]
        if overrides and overrides[0].startswith("scheme="):
            assert quantship.check("recipe.yaml", overrides=overrides).scheme == "w8a16"


def test_its_sessions_exist(readme: str, repository: Path) -> None:
    noxfile = (repository / "noxfile.py").read_text()
    sessions = set(re.findall(r"nox -s (\w+)", readme))
    assert sessions >= {"quickstart", "tests", "bench"}
    assert all(f"def {name}(session" in noxfile for name in sessions)


def test_its_python_compiles_and_names_what_there_is(readme: str) -> None:
    for block in blocks(readme, "python"):
        compile(block, "README.md", "exec")
        for name in re.findall(r"quantship\.(\w+)\(", block):
            assert name in quantship.__all__


def test_its_tables_list_all_schemes_lowerings_algorithms_and_tasks(readme: str) -> None:
    rows = re.findall(r"^\| `([\w-]+)` \|", readme, re.MULTILINE)
    assert [name for name in rows if name in SCHEMES] == list(SCHEMES)
    others = {name for name in rows if name not in SCHEMES}
    assert others == set(get_args(Lowering)) | set(ALGORITHMS) | set(TASKS)


def test_its_adapters_are_those_of_the_language(readme: str) -> None:
    (line,) = re.findall(r"- adapter: (\w+)\s+# also: (.*)", readme)
    named = {line[0], *line[1].split(", ")}
    schema = explain.schema_text()
    assert all(f'"{name}"' in schema for name in named)


def test_its_tree_is_the_tree(readme: str, repository: Path) -> None:
    (tree,) = [block for block in blocks(readme, "") if block.startswith("quantship/")]
    for line in tree.splitlines():
        inside, name = re.match(r"([├└]── )?([\w./]+)", line).groups()  # type: ignore[union-attr]
        assert (repository / ("quantship" if inside else "") / name).exists(), name
    stages = re.search(r"stages/ +(.*)", tree)
    assert stages is not None
    shown = set(stages.group(1).split())
    there = {path.stem for path in (repository / "quantship" / "stages").glob("[a-z]*.py")}
    assert shown == there
