from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from quantship.recipe import load

Write = Callable[..., Path]
Complaints = Callable[..., str]


@pytest.mark.parametrize("changes", [["data.holdout=0.1"], ["data.eval=[]", "data.holdout=0.1"]])
def test_what_is_held_out_is_something_to_evaluate_on(write: Write, changes: list[str]) -> None:
    assert load(write(), overrides=changes).data.holdout == 0.1


def test_data_without_a_side_to_evaluate_on_is_refused(
    write: Write, complaints: Complaints, plain_recipe: str
) -> None:
    path = write(plain_recipe.replace("  eval: [{adapter: builtin, split: eval}]\n", ""))
    said = complaints(path)
    assert f"{path}:3: data.eval: nothing to evaluate on\n" in said
    assert "or data.holdout a share of data.train" in said
    assert load(path, overrides=["data.holdout=0.1"]).data.eval == ()


def test_a_share_of_nothing_is_refused(write: Write, complaints: Complaints) -> None:
    said = complaints(write(), overrides=["data.train=[]", "data.holdout=0.1"])
    assert "data.train: nothing to hold out of" in said


@pytest.mark.parametrize("share", ["0", "1", "-0.1", "10", "true"])
def test_a_share_is_between_none_and_all(write: Write, complaints: Complaints, share: str) -> None:
    assert "data.holdout" in complaints(write(), overrides=[f"data.holdout={share}"])


def test_a_broken_source_is_not_called_missing(write: Write, complaints: Complaints) -> None:
    said = complaints(write(), overrides=["data.eval=[{adapter: builtin, limit: 0}]"])
    assert "nothing to evaluate on" not in said
