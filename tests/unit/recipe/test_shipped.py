from __future__ import annotations

import socket
from pathlib import Path

import pytest

from quantship.algorithms.table import ALGORITHMS
from quantship.errors import UsageError
from quantship.quant.scheme import SCHEMES
from quantship.recipe import check, load
from quantship.recipe.language import QuantizeStep
from quantship.recipe.layers import read_chain
from quantship.recipe.shipped import find, folder, names
from quantship.recipe.yaml_source import plain


@pytest.mark.parametrize("name", names())
def test_every_shipped_recipe_passes_check(name: str) -> None:
    assert check(find(name)).name == name


@pytest.mark.parametrize("name", names())
def test_a_check_asks_no_server(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    def refuse(*address: object) -> None:
        raise AssertionError(f"asked {address}")

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    check(find(name))


@pytest.mark.parametrize("name", names())
def test_every_shipped_recipe_has_a_smoke_profile_on_the_same_path(name: str) -> None:
    full, smoke = load(find(name)), load(find(name), profile="smoke")
    assert smoke != full
    path, whole = ([(s.stage, s.name, s.input) for s in recipe.steps] for recipe in (smoke, full))
    assert path == [step for step in whole if step in path]
    # Only a sweep may be shorter.
    written = plain(read_chain(find(name), [])["steps"])
    assert {step.stage for step in smoke.steps} == {step["stage"] for step in written}
    if len(full.steps) == len(written):
        assert path == whole


def test_one_recipe_sweeps_over_schemes_and_algorithms() -> None:
    recipe = load(find("smollm2-135m-ptq"))
    swept = [step for step in recipe.steps if isinstance(step, QuantizeStep)]
    assert {step.algorithm.kind for step in swept} == ALGORITHMS.keys()
    assert len(swept) == 5 * 4 + 2
    assert [step.name for step in recipe.steps][:2] == ["finetune", "ptq-w4a16-g32-rtn"]


def test_the_quickstart_needs_no_network() -> None:
    recipe = load(find("quickstart"))
    assert recipe.model.tiny is not None
    assert {source.adapter for source in (*recipe.data.train, *recipe.data.eval)} == {"builtin"}


def test_one_recipe_quantizes_in_every_scheme_of_the_table() -> None:
    recipe = load(find("smollm2-135m-every-scheme"))
    used = {str(step.scheme) for step in recipe.steps if isinstance(step, QuantizeStep)}
    own = recipe.schemes
    assert {own[name].base if name in own else name for name in used} == SCHEMES.keys()
    assert own.keys() <= used


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


def test_a_name_may_hold_dots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert find("llama-3.2-1b") == folder() / "llama-3.2-1b.yaml"
    with pytest.raises(UsageError, match=r"Did you mean llama-3\.2-1b\?"):
        find("llama-3.2-1")


def test_an_unknown_name_lists_the_shipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        UsageError, match=r"Did you mean quickstart\? Shipped: .*quickstart, smollm2"
    ):
        find("quickstrat")
