from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest

from quantship.tasks import lm_eval
from quantship.tasks.lm_eval_definitions import find_obstacles, load, read

HERE = "task: mine\ntag: [ours]\n"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current directory, with a task ``mine``."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.yaml").write_text(HERE)
    return tmp_path


def messages(run: str, folder: Path | None) -> list[tuple[str, str]]:
    return [(one.key, one.message) for one in find_obstacles(run, folder)]


def test_what_is_included_comes_first_and_is_overridden(folder: Path) -> None:
    (folder / "deep").mkdir()
    (folder / "deep" / "base").write_text("task: base\na: 1\nb: 2\n")
    (folder / "deep" / "middle").write_text("include: base\nb: 3\nc: 4\n")
    (folder / "mine.yaml").write_text("include: [deep/middle]\ntask: mine\nc: 5\n")
    sources = set[Path]()
    found = load(folder / "mine.yaml", sources)
    assert found == {"task": "mine", "a": "1", "b": "3", "c": "5"}
    assert {path.name for path in sources} == {"base", "middle", "mine.yaml"}


def test_the_files_of_a_task_are_its_definition_code_and_data(folder: Path) -> None:
    for name in ("train.jsonl", "a1.csv", "a2.csv", "utils.py", "base"):
        (folder / name).write_text("")
    (folder / "base").write_text("b: 1\n")
    data = "dataset_kwargs: {data_files: {train: train.jsonl, test: [a*.csv, 'hf://x/y']}}\n"
    (folder / "mine.yaml").write_text(HERE + data + "include: base\n")
    (folder / "other.yaml").write_text("task: other\ndataset_kwargs: {data_files: gone.csv}\n")
    options = lm_eval.Options(task="lm_eval", run="mine", include_path=folder)
    names = ["a1.csv", "a2.csv", "base", "mine.yaml", "train.jsonl", "utils.py"]
    assert sorted(path.name for path in options.files) == names
    assert read(folder, "ours").missing == ["other.yaml: no such file: gone.csv"]


def test_every_wildcard_may_start_at_the_root(folder: Path) -> None:
    (folder / "a.csv").write_text("")
    (folder / "mine.yaml").write_text(HERE + f"dataset_kwargs: {{data_files: {folder}/*.csv}}\n")
    assert folder / "a.csv" in read(folder, "mine").files


@pytest.mark.parametrize("text", ["", "[1]", "a: [", "include: mine.yaml", "include: gone", "\0"])
def test_what_is_no_definition_is_named(folder: Path, text: str) -> None:
    pytest.importorskip("lm_eval")
    (folder / "mine.yaml").write_text(text)
    ((key, message),) = messages("mine", folder)
    assert key == "include_path"
    assert "mine.yaml" in message or "gone" in message


def test_a_definition_that_holds_itself_is_refused(folder: Path) -> None:
    (folder / "mine.yaml").write_text("task: &a [*a]\n")
    with pytest.raises(ValueError, match=r"mine\.yaml"):
        load(folder / "mine.yaml", set())


def test_tasks_are_found_among_the_users_own_and_lm_evals(folder: Path) -> None:
    pytest.importorskip("lm_eval")
    for run in ("mine", "ours", "hellaswag", "mmlu", "glue"):
        assert messages(run, folder) == []
    (unknown,) = find_obstacles("helaswag", folder)
    assert (unknown.key, unknown.message) == ("run", "lm-eval has no task 'helaswag'")
    assert "defines mine, ours" in unknown.remedy
    assert messages("mine", None) == [("run", "lm-eval has no task 'mine'")]


@pytest.mark.parametrize("run", ["humaneval", "mine"])
def test_a_task_that_runs_what_models_write_without_limits_is_refused(
    folder: Path, run: str
) -> None:
    pytest.importorskip("lm_eval")
    (folder / "mine.yaml").write_text(HERE + "unsafe_code: true\n")
    ((key, message),) = messages(run, folder)
    assert key == "run"
    assert "without limits" in message


def test_a_directory_or_data_that_is_not_there_is_named(folder: Path) -> None:
    pytest.importorskip("lm_eval")
    assert messages("mine", folder / "gone") == [
        ("include_path", f"no such directory: {folder / 'gone'}")
    ]
    (folder / "mine.yaml").write_text(HERE + "dataset_kwargs: {data_files: gone.csv}\n")
    assert messages("mine", folder) == [("include_path", "mine.yaml: no such file: gone.csv")]


def test_lm_eval_that_is_not_installed_is_what_is_wrong(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "quantship.tasks.lm_eval_definitions.find_spec"
    monkeypatch.setattr(name, lambda name: None if name == "lm_eval" else find_spec(name))
    (missing,) = find_obstacles("hellaswag", None)
    assert (missing.key, "quantship[lm-eval]" in missing.remedy) == ("task", True)
