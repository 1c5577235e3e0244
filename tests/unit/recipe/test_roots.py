"""A recipe chooses nothing outside the folders that its user works in, whatever the trick."""

from __future__ import annotations

import os
import types
import typing
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from quantship.data.source import MAY_BE_LOCAL
from quantship.errors import RecipeError
from quantship.recipe import Recipe, check, load, roots
from quantship.recipe.load import load_text

PLAIN = """\
model: {tiny: {}}
scheme: w8a8
data:
  train: [{adapter: builtin}]
  eval: [{adapter: builtin, split: eval}]
steps:
  - stage: finetune
  - {stage: qat, input: finetune}
"""
PLACES = {
    "model.path": "model: {tiny: null, path: OUT}",
    "model": "model: OUT",
    "steps.1.distill.teacher.path": "steps.1.distill: {teacher: {path: OUT}}",
    "steps.1.distill.teacher": "steps.1.distill: {teacher: OUT}",
    **{
        f"data.train.0.path: {adapter}": f"data.train: [{{adapter: {adapter}, path: OUT}}]"
        for adapter in ("alpaca", "chat", "gsm8k", "mbpp", "sharegpt", "squad", "wikitext")
    },
    "data.train.0.path: glue": "data.train: [{adapter: glue, task: sst2, path: OUT}]",
    "data.train.0.path: superglue": "data.train: [{adapter: superglue, task: boolq, path: OUT}]",
    "data.train.0.dataset": "data.train: [{adapter: hub, dataset: OUT}]",
    "evaluation.tasks.0.include_path": (
        "evaluation: {tasks: [{task: lm_eval, run: quiz, include_path: OUT}]}"
    ),
    "evaluation.tasks.0.source.path": (
        "evaluation: {tasks: [{task: gsm8k, source: {adapter: gsm8k, path: OUT}}]}"
    ),
    "evaluation.tasks.0.shots_source.path": (
        "evaluation: {tasks: [{task: gsm8k, shots: 1, shots_source: {adapter: gsm8k, path: OUT}}]}"
    ),
}
"""Every key of the language that takes a path, and a change of ``PLAIN`` that sets it."""
FREE_TEXTS = {
    *("description", "split", "config", "messages", "prompt", "completion", "text"),
    *("chat_template", "scheme", "schemes", "base", "layers", "input", "targets", "step"),
    *("candidates", "max_bytes", "max_perplexity_increase", "models", "prompts", "run"),
    *("system_instruction", "project", "min", "max", "max_increase", "max_decrease", "over"),
    *("hub", "revision", "base_model", "name", "run_name", "repo", "tag", "license"),
}
"""Keys that hold texts, none of which is ever opened: looked at, one by one."""

Here = Callable[..., Path]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Here:
    """A folder to work in, with a recipe in it; beside it, ``out`` holds what is not the user's."""
    folder, out = tmp_path / "work", tmp_path / "out"
    folder.mkdir()
    out.mkdir()
    (out / "file.jsonl").write_text("{}\n")
    monkeypatch.chdir(folder)
    monkeypatch.delenv(roots.ROOTS)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))

    def here(change: str = "", text: str = PLAIN) -> Path:
        lines = f"extends: plain.yaml\n{change}\n" if change else text
        (folder / "plain.yaml").write_text(PLAIN)
        (folder / "recipe.yaml").write_text(lines)
        return folder / "recipe.yaml"

    return here


def told(path: Path, **options: Any) -> list[Any]:
    with pytest.raises(RecipeError) as caught:
        check(path, **options)
    return list(caught.value.problems)


def strays(path: Path, **options: Any) -> list[Any]:
    return [one for one in told(path, **options) if "outside the folders" in one.message]


def said(path: Path, setting: str) -> str:
    """What is wrong with a recipe with a setting, if anything is."""
    try:
        load(path, overrides=[setting])
    except RecipeError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("form", ["absolute", "dots", "home", "link"])
@pytest.mark.parametrize("place", PLACES)
def test_no_key_leads_outside(
    here: Here, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str, form: str
) -> None:
    out = tmp_path / "out"
    monkeypatch.setenv("HOME", str(out))
    (tmp_path / "work" / "link").symlink_to(out)
    written = {"absolute": str(out), "dots": "../out", "home": "~/file", "link": "./link"}[form]
    path = here(PLACES[place].replace("OUT", written))
    (problem,) = strays(path)
    assert problem.key == place.partition(":")[0] or problem.key == f"{place}.path"
    assert (problem.file, problem.line) == (path, 2)
    assert str(tmp_path / "work") in problem.remedy
    setting = problem.remedy.partition("--set ")[2].partition(";")[0]
    assert "outside the folders" not in said(path, setting)


def test_all_else_that_is_wrong_is_told_as_well(here: Here) -> None:
    path = here("model: ../out\ndata.train: [{adapter: chat, path: /etc/passwd}]\nseed: x\nnone: 1")
    keys = {problem.key for problem in told(path)}
    assert keys == {"model.path", "data.train.0.path", "seed", "none"}


def test_what_may_not_be_read_is_not_read(
    here: Here, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "out" / "config.json").write_text("{}")
    (tmp_path / "out" / "quiz.yaml").write_text("task: quiz\n")
    changes = ["model: ../out", "evaluation: {tasks: [{task: lm_eval, run: quiz, "]
    path = here(f"{changes[0]}\n{changes[1]}include_path: ../out}}]}}")
    opened = []

    def spy(self: Path, *arguments: Any, **options: Any) -> Any:
        opened.append(self.resolve())
        return real(self, *arguments, **options)

    real = Path.open
    monkeypatch.setattr(Path, "open", spy)
    assert len(strays(path)) == 2
    assert path in opened
    assert not [file for file in opened if file.is_relative_to(tmp_path / "out")]


def test_roots_named_in_the_environment(
    here: Here, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = here("data.train: [{adapter: chat, path: ../out/file.jsonl}]")
    assert strays(path)
    folders = [str(tmp_path / "none"), str(tmp_path / "out")]
    monkeypatch.setenv(roots.ROOTS, os.pathsep.join(folders))
    load(path)


def test_the_folder_of_the_recipe_and_the_cache_of_the_hub(
    here: Here, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path / "out")
    path = here(f"data.train: [{{adapter: chat, path: {tmp_path}/work/a.jsonl}}]")
    (tmp_path / "work" / "a.jsonl").touch()
    load(path)
    snapshot = tmp_path / "cache" / "models--a--b" / "snapshots" / "c"
    snapshot.mkdir(parents=True)
    assert not [one for one in told(here(f"model: {snapshot}")) if "outside" in one.message]


def test_a_file_system_s_root_is_no_folder_to_work_in(
    here: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir("/")
    assert Path("/") not in roots.allowed(Path("/recipe.yaml"))
    assert strays(here("data.train: [{adapter: chat, path: /etc/passwd}]"))
    monkeypatch.setenv(roots.ROOTS, "/")
    assert Path("/") in roots.allowed(Path("/recipe.yaml"))


def test_links_in_a_folder_that_is_read(here: Here, tmp_path: Path) -> None:
    model = tmp_path / "work" / "model"
    model.mkdir()
    (model / "config.json").symlink_to(tmp_path / "out" / "file.jsonl")
    (problem,) = strays(here("model: ./model"))
    assert f"{Path('model/config.json')} is a link to {tmp_path / 'out'}" in problem.message
    blobs = tmp_path / "cache" / "blobs"
    blobs.mkdir(parents=True)
    (blobs / "a").write_text("{}")
    (model / "config.json").unlink()
    (model / "config.json").symlink_to(blobs / "a")
    assert not [one for one in told(here("model: ./model")) if "outside" in one.message]


def test_a_base_outside_is_not_read(here: Here, tmp_path: Path) -> None:
    (tmp_path / "out" / "base.yaml").write_text("nonsense: [")
    (problem,) = told(here(text="extends: ../out/base.yaml\n"))
    assert problem.key == "extends"
    assert "outside the folders" in problem.message
    assert roots.ROOTS in problem.remedy
    (tmp_path / "work" / "base.yaml").symlink_to(tmp_path / "out" / "base.yaml")
    (problem,) = told(here(text="extends: base.yaml\n"))
    assert "outside the folders" in problem.message


def test_a_profile_is_no_command_line(here: Here) -> None:
    text = f"{PLAIN}profiles: {{sly: {{data.train.0: {{path: /etc/passwd, adapter: chat}}}}}}\n"
    (problem,) = strays(here(text=text))
    assert problem.line == len(text.splitlines())


def test_what_sweeps_make_is_bound_too(here: Here) -> None:
    swept = PLAIN.replace("{stage: qat", "{stage: qat, distill: {teacher: [./a, ../out]}")
    (problem,) = strays(here(text=swept))
    assert "--set steps.1.distill.teacher.1=" in problem.remedy


def test_nothing_in_a_lock_counts_as_given(here: Here, tmp_path: Path) -> None:
    data = tmp_path / "out" / "file.jsonl"
    written = PLAIN.replace("[{adapter: builtin}]", f"[{{adapter: chat, path: {data}}}]")
    lock = tmp_path / "work" / "lock.json"
    with pytest.raises(RecipeError, match="outside the folders"):
        load_text(written, lock)
    load_text(written, lock, overrides=[f"data.train.0.path={data}"])


def test_definitions_of_tasks_lead_nowhere_else(here: Here, tmp_path: Path) -> None:
    folder = tmp_path / "work" / "quiz"
    folder.mkdir()
    definition = "task: quiz\ndataset_path: json\ndataset_kwargs: {data_files: {test: FILE}}\n"
    recipe = here("evaluation: {tasks: [{task: lm_eval, run: quiz, include_path: quiz}]}")
    for change in (str(tmp_path / "out" / "file.jsonl"), "../out/file.jsonl"):
        (folder / "quiz.yaml").write_text(definition.replace("FILE", change))
        (problem,) = [one for one in told(recipe) if "a definition in quiz reads" in one.message]
        assert problem.key == "evaluation.tasks.0.include_path"
    (folder / "quiz.yaml").write_text("include: ../../out/file.jsonl\n")
    assert any("out/file.jsonl" in str(problem) for problem in told(recipe))


def test_a_walk_over_a_recipe_meets_every_kind_of_value() -> None:
    known = {Path, str, int, float, bool, types.NoneType, tuple, dict, list}
    kinds = {leaf for _, _, leaf in fields(Recipe)}
    others = {one for one in kinds if not issubclass(one, BaseModel)}
    assert others - known == set()


def test_every_key_for_a_path_is_tried_above() -> None:
    paths = {
        f"{model.__module__.rpartition('.')[2]}.{model.__name__}.{name}"
        for model, name, leaf in fields(Recipe)
        if leaf is Path or MAY_BE_LOCAL in model.model_fields[name].metadata
    }
    with_path = {change.partition("adapter: ")[2].partition(",")[0] for change in PLACES.values()}
    adapters = with_path - {"", "hub"}
    assert paths == {
        *("model_options.Model.path", "model_options.Teacher.path"),
        *("hub.Options.dataset", "lm_eval.Options.include_path"),
        *(f"{adapter}.Options.path" for adapter in adapters),
    }


def test_every_free_text_was_looked_at() -> None:
    texts = {
        name
        for model, name, leaf in fields(Recipe)
        if leaf is str and MAY_BE_LOCAL not in model.model_fields[name].metadata
    }
    assert texts - FREE_TEXTS == set()


def fields(model: type[BaseModel]) -> Iterator[tuple[type[BaseModel], str, type]]:
    """Every field of a model and of those below it, with each type that its value may have."""
    waiting, seen = [model], set[type]()
    while waiting:
        one = waiting.pop()
        if one in seen:
            continue
        seen.add(one)
        for name, field in one.model_fields.items():
            for leaf in _leaves(field.annotation):
                yield one, name, leaf
                if issubclass(leaf, BaseModel):
                    waiting.append(leaf)


def _leaves(annotation: Any) -> Iterator[type]:
    origin = typing.get_origin(annotation)
    if origin is typing.Literal:
        return
    if origin is None:
        yield annotation
        return
    inner = typing.get_args(annotation)
    for part in inner[:1] if origin is typing.Annotated else inner:
        if part is not Ellipsis:
            yield from _leaves(part)
    if origin not in (typing.Union, types.UnionType, typing.Annotated):
        yield origin
