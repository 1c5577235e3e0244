from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from quantship.comparing.opening import open_runs
from quantship.errors import UsageError

LOSSES = {"tuned": 1.8, "ptq-rtn": 2.0}


def labels(*paths: Path) -> list[str]:
    return [run.label for run in open_runs(paths)]


def test_a_run_its_report_and_their_root_are_one_and_the_same(shelf: Any) -> None:
    run = shelf.put("one", LOSSES)
    shelf.put("two", LOSSES)
    root = run.parents[1]
    assert labels(run) == labels(run / "report.json") == ["one"]
    assert labels(root) == labels(root / "runs") == ["one", "two"]
    assert labels(root / "runs" / "two", run, root) == ["two", "one"]


def test_runs_of_one_name_are_numbered(shelf: Any) -> None:
    runs = [shelf.put("same", LOSSES, root) for root in ("here", "there")]
    assert labels(*runs) == ["same#1", "same#2"]


def test_losses_by_sequence_are_found_beside_a_run(shelf: Any) -> None:
    (run,) = open_runs([shelf.put("one", LOSSES)])
    assert set(run.sequences) == set(LOSSES)
    (run,) = open_runs([shelf.put("two", LOSSES, steps=False)])
    assert run.sequences == {}


def test_losses_that_are_not_those_of_the_report_are_not_used(shelf: Any) -> None:
    directory = shelf.put("one", LOSSES)
    report = json.loads((directory / "report.json").read_text())
    report["models"][1]["metrics"]["mean_loss"] += 0.1
    (directory / "report.json").write_text(json.dumps(report))
    (run,) = open_runs([directory])
    assert set(run.sequences) == {"tuned"}


def test_a_report_that_was_moved_has_no_losses_by_sequence(shelf: Any, tmp_path: Path) -> None:
    moved = tmp_path / "other.json"
    (shelf.put("one", LOSSES) / "report.json").rename(moved)
    (run,) = open_runs([moved])
    assert (run.sequences, run.fingerprints) == ({}, {})


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("steps: []", "is no JSON, so it is no report"),
        ("[]", "is JSON, but no report of quantship"),
        ('{"a": 1}', "is JSON, but no report of quantship"),
        ('{"quantship_version": "9", "models": [], "schema_version": 2}', "of version 2, and this"),
        ('{"quantship_version": "9", "models": []}', "of version None"),
        ('{"quantship_version": "9", "models": [], "schema_version": 1}', "recipe: Field required"),
    ],
)
def test_what_is_no_report_is_told_by_name(tmp_path: Path, content: str, words: str) -> None:
    path = tmp_path / "foreign.json"
    path.write_text(content)
    with pytest.raises(UsageError) as caught:
        open_runs([path])
    assert str(caught.value).startswith(f"{path}: ")
    assert words in str(caught.value)


def test_everything_that_is_wrong_is_told_at_once(tmp_path: Path) -> None:
    recipe = tmp_path / "my.yaml"
    recipe.write_text("steps: []")
    with pytest.raises(UsageError) as caught:
        open_runs([tmp_path / "gone", tmp_path, recipe])
    gone, empty, _, yaml, hint = str(caught.value).splitlines()
    assert "there is no such file" in gone
    assert "holds no report.json" in empty
    assert "is no JSON" in yaml
    assert "run it first" in hint
