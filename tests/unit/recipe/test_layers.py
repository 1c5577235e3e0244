from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from quantship.recipe import Recipe, load

Write = Callable[..., Path]
Complaints = Callable[..., str]


def changed(before: Recipe, after: Recipe) -> dict[str, Any]:
    """Dotted keys whose values differ, with their values after."""
    first, second = flat(before.model_dump(mode="json")), flat(after.model_dump(mode="json"))
    return {
        key: second.get(key)
        for key in first.keys() | second.keys()
        if first.get(key) != second.get(key)
    }


def flat(value: Any, prefix: str = "") -> dict[str, Any]:
    items = value.items() if isinstance(value, dict) else enumerate(value)
    found: dict[str, Any] = {}
    for key, item in items:
        path = f"{prefix}.{key}".lstrip(".")
        found |= flat(item, path) if isinstance(item, dict | list) else {path: item}
    return found


@pytest.mark.parametrize(
    ("override", "change"),
    [
        ("seed=3", {"seed": 3}),
        ("steps.1.learning_rate=1e-3", {"steps.1.learning_rate": 1e-3}),
        ("steps.qat.learning_rate=1e-3", {"steps.1.learning_rate": 1e-3}),
        ("data.train.builtin.limit=5", {"data.train.0.limit": 5}),
        ("benchmark.rounds=1", {"benchmark.rounds": 1}),
        ("description='a=b: c'", {"description": "a=b: c"}),
        ("steps.export.input=[finetune]", {"steps.2.input.0": "finetune"}),
        ("model={hub: a/b}", {"model.hub": "a/b"}),
        ("model=a/b", {"model.hub": "a/b"}),
    ],
)
def test_set_changes_its_key_and_nothing_else(
    write: Write, override: str, change: dict[str, Any]
) -> None:
    path = write()
    after = changed(load(path), load(path, overrides=[override]))
    assert {
        key: value for key, value in after.items() if not key.startswith("model.tiny")
    } == change


def test_set_replaces_a_mapping_whole(write: Write) -> None:
    path = write("benchmark: {rounds: 9, threads: 2}\n" + write().read_text())
    assert load(path).benchmark.threads == 2  # type: ignore[union-attr]
    replaced = load(path, overrides=["benchmark={rounds: 7}"]).benchmark
    assert (replaced.rounds, replaced.threads) == (7, None)  # type: ignore[union-attr]


def test_set_reaches_into_what_the_file_leaves_out_or_makes_null(write: Write) -> None:
    path = write("benchmark: null\n" + write().read_text())
    assert load(path).benchmark is None
    assert load(path, overrides=["benchmark.rounds=7"]).benchmark.rounds == 7  # type: ignore[union-attr]


def test_later_settings_win(write: Write) -> None:
    assert load(write(), overrides=["seed=1", "seed=2"]).seed == 2


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("steps.qat.learning_rat=1", "Did you mean learning_rate"),
        ("sed=1", "Did you mean seed"),
        ("steps.qta.max_steps=1", "Did you mean qat"),
        ("steps.7.max_steps=1", "Items: finetune, qat, export"),
        ("seed", "KEY=VALUE"),
        ("=1", "KEY=VALUE"),
        ("extends=x", "KEY=VALUE"),
        ("seed.deeper=1", "no key of the single value"),
        ("seed=[1", "read as YAML"),
        ("seed={a: 1, a: 2}", "duplicate key"),
        ("steps..x=1", "no item is called ''"),
        ("seed=fast", "(from --set)"),
    ],
)
def test_a_bad_setting_says_what_to_write(
    write: Write, complaints: Complaints, override: str, words: str
) -> None:
    path = write("seed: 0\n" + write().read_text())
    assert words in complaints(path, overrides=[override])


def test_an_ambiguous_item_asks_for_its_index(write: Write, complaints: Complaints) -> None:
    text = (
        write()
        .read_text()
        .replace("  - stage: qat", "  - {stage: qat, name: a}\n  - {stage: qat, name: b}")
    )
    said = complaints(write(text), overrides=["steps.qat.max_steps=1"])
    assert "2 items have stage 'qat'" in said
    assert "1 or 2" in said


def test_a_step_without_a_name_has_that_of_its_stage(write: Write) -> None:
    text = (
        write().read_text().replace("  - stage: qat", "  - stage: qat\n  - {stage: qat, name: b}")
    )
    steps = load(write(text), overrides=["steps.qat.max_steps=1", "steps.b.max_steps=2"]).steps
    assert [getattr(step, "max_steps", None) for step in steps] == [None, 1, 2, None]


def test_a_name_comes_before_a_stage(write: Write) -> None:
    text = (
        write()
        .read_text()
        .replace("  - stage: qat", "  - {stage: qat, name: first}\n  - {stage: qat, name: qat}")
    )
    recipe = load(write(text), overrides=["steps.qat.epochs=7"])
    assert [getattr(step, "epochs", None) for step in recipe.steps] == [1.0, 1.0, 7.0, None]


@pytest.mark.parametrize(
    "profile",
    [
        "{steps.qat.max_steps: 5, data.max_length: 64}",
        "{steps.1.max_steps: 5, data: {max_length: 64}}",
        "{steps: {qat: {max_steps: 5}}, data.max_length: 64}",
        "{steps.qat: {max_steps: 5}, data.max_length: 64}",
    ],
)
def test_a_profile_changes_its_keys_and_nothing_else(write: Write, profile: str) -> None:
    path = write(write().read_text() + f"profiles:\n  smoke: {profile}\n")
    change = changed(load(path), load(path, profile="smoke"))
    assert change == {"steps.1.max_steps": 5, "data.max_length": 64}


def test_settings_come_after_the_profile(write: Write) -> None:
    path = write(write().read_text() + "profiles: {smoke: {seed: 5}}\n")
    assert load(path, profile="smoke", overrides=["seed=6"]).seed == 6


def test_an_unknown_profile_lists_the_known(write: Write, complaints: Complaints) -> None:
    path = write(write().read_text() + "profiles: {smoke: {}, full: {}}\n")
    said = complaints(path, profile="smok")
    assert "no profile is called 'smok'" in said
    assert "Did you mean smoke? Profiles: smoke, full." in said
    assert "has no profiles" in complaints(write(), profile="smoke")


@pytest.mark.parametrize("profiles", ["5", "[a]", "{smoke: 5}", "{}\nextends: 5"])
def test_what_are_no_profiles_is_refused(
    write: Write, complaints: Complaints, profiles: str
) -> None:
    assert "expected" in complaints(write(write().read_text() + f"profiles: {profiles}\n"))


def test_a_file_that_extends_another_changes_its_keys_and_nothing_else(write: Write) -> None:
    base = write(name="base.yaml")
    child = write(
        "extends: base.yaml\nsteps.qat.max_steps: 5\ndata: {max_length: 64}\n"
        "steps: {finetune: {batch_size: 2}}\n",
        name="child.yaml",
    )
    assert changed(load(base), load(child)) == {
        "name": "child",
        "steps.0.batch_size": 2,
        "steps.1.max_steps": 5,
        "data.max_length": 64,
    }


def test_lists_are_replaced_whole(write: Write) -> None:
    write(name="base.yaml")
    child = write("extends: base.yaml\nsteps: [{stage: finetune}]\n", name="child.yaml")
    assert [step.stage for step in load(child).steps] == ["finetune"]


def test_extends_is_relative_to_the_file_and_may_chain(write: Write, tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    write("name: called\nseed: 1\ndescription: low\n" + write().read_text(), name="base.yaml")
    write("extends: ../base.yaml\nseed: 2\n", name="deep/middle.yaml")
    top = write("extends: deep/middle.yaml\nscheme: w8a16\n", name="top.yaml")
    recipe = load(top)
    assert (recipe.seed, recipe.scheme, recipe.description) == (2, "w8a16", "low")
    assert recipe.name == "top"  # a base never lends its name: two runs would land in one place


def test_profiles_are_inherited_and_changed(write: Write) -> None:
    write(write().read_text() + "profiles: {smoke: {seed: 5, data.max_length: 64}}\n", "base.yaml")
    child = write("extends: base.yaml\nprofiles: {smoke: {seed: 6}}\n", name="child.yaml")
    recipe = load(child, profile="smoke")
    assert (recipe.seed, recipe.data.max_length) == (6, 64)


def test_a_circle_of_files_is_refused_with_the_chain(write: Write, complaints: Complaints) -> None:
    first = write("extends: b.yaml\n", name="a.yaml")
    write("seed: 1\nextends: a.yaml\n", name="b.yaml")
    said = complaints(first)
    assert "b.yaml:2: extends:" in said
    assert said.count("→") == 2


def test_a_missing_base_is_named_where_it_is_asked_for(
    write: Write, complaints: Complaints
) -> None:
    said = complaints(write("seed: 1\nextends: gone.yaml\n"))
    assert "recipe.yaml:2: extends: no such file" in said


def test_an_error_in_a_base_names_the_base(write: Write, complaints: Complaints) -> None:
    write("sed: 1\n" + write().read_text(), name="base.yaml")
    child = write("extends: base.yaml\nscheme: w8a9\n", name="child.yaml")
    said = complaints(child)
    assert "base.yaml:1: sed: unknown key" in said
    assert "child.yaml:2: scheme: unknown scheme 'w8a9'" in said


@pytest.mark.parametrize(
    ("stem", "name"), [("quick", "quick"), ("My Recipe (2)", "my-recipe-2-"), ("é", "recipe")]
)
def test_the_name_defaults_to_the_files(write: Write, stem: str, name: str) -> None:
    assert load(write(name=f"{stem}.yaml")).name == name
