from __future__ import annotations

from pathlib import Path

import pytest

from quantship.errors import UsageError
from quantship.recipe import check, load
from quantship.recipe.shipped import find, folder, names


@pytest.mark.parametrize("name", names())
def test_every_shipped_recipe_passes_check(name: str) -> None:
    assert check(find(name)).name == name


@pytest.mark.parametrize("name", names())
def test_every_shipped_recipe_has_a_smoke_profile_on_the_same_path(name: str) -> None:
    full, smoke = load(find(name)), load(find(name), profile="smoke")
    assert smoke != full
    assert [(s.stage, s.name, s.input) for s in smoke.steps] == [
        (s.stage, s.name, s.input) for s in full.steps
    ]


def test_the_quickstart_needs_no_network() -> None:
    recipe = load(find("quickstart"))
    assert recipe.model.tiny is not None
    assert {source.adapter for source in (*recipe.data.train, *recipe.data.eval)} == {"builtin"}


def test_smollm2_runs_from_local_copies(tiny_model_dir: Path, shared_data: Path) -> None:
    recipe = load(
        find("smollm2-135m-w8a8-qat"),
        profile="smoke",
        overrides=[
            f"model={tiny_model_dir}",
            f"data.train.0.path={shared_data / 'gsm8k' / 'train.jsonl'}",
            f"data.eval.0.path={shared_data / 'gsm8k' / 'test.jsonl'}",
        ],
    )
    assert recipe.model.path == tiny_model_dir


def test_a_file_comes_before_a_shipped_recipe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert find("quickstart") == folder() / "quickstart.yaml"
    Path("quickstart").touch()
    assert find("quickstart") == Path("quickstart")


@pytest.mark.parametrize(
    "path", ["my.yaml", "folder/quickstart", "./quickstart", "quickstart.yaml"]
)
def test_what_looks_like_a_path_is_one(path: str) -> None:
    assert find(path) == Path(path)


def test_an_unknown_name_lists_the_shipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=r"Did you mean quickstart\? Shipped: quickstart, smollm2"):
        find("quickstrat")
