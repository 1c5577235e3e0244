"""Tasks of several runs: side by side where the examples are the same, paired where at hand."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from quantship import artifact
from quantship.comparing import markdown, tasks, words
from quantship.comparing.compare import compare
from quantship.comparing.opening import Opened, open_runs
from quantship.reporting.evidence_schema import Evidence, MetricFacts, TaskFacts, TaskResult
from quantship.reporting.recovery_schema import Estimate
from quantship.reporting.schema import Report
from quantship.tasks import scores
from quantship.tasks.base import Example

METRIC = MetricFacts(name="exact_match", better="higher", kind="share", judges=True)
SIZE = 50


def answers(right: int) -> list[Example]:
    return [Example(f"test[{n}]", {"exact_match": float(n < right)}) for n in range(SIZE)]


def give_task(
    run: Path, right: dict[str, int], *, digest: str = "d" * 64, keep: bool = True
) -> None:
    """Let the models of a run on disk have answered so many examples of a task."""
    report = Report.model_validate_json((run / "report.json").read_text())
    names = json.loads((run / "artifacts.json").read_text())
    rows = []
    for row in report.models:
        value = right[row.name] / SIZE
        result = TaskResult(
            metrics={"exact_match": Estimate(value=value, low=value, high=value)},
            extra={},
            runtime="torch",
            seconds=1.0,
        )
        rows.append(row.model_copy(update={"tasks": {"gsm8k": result}}))
        names[f"gsm8k of {row.name}"] = made = f"task-{names[row.name]}".ljust(20, "0")
        if keep:
            out = artifact.begin(artifact.directory(run.parent.parent, "task", made))
            scores.write(answers(right[row.name]), out)
            facts = {
                "metrics": {"exact_match": value},
                "digest": digest,
                "runtime": "torch",
                "seconds": 1.0,
                "extra": {},
            }
            artifact.finish(
                out,
                stage="task",
                fingerprint=made,
                settings={},
                inputs={},
                facts=facts,
                duration_s=1.0,
            )
    found = TaskFacts(
        name="gsm8k", task="gsm8k", metrics=[METRIC], num_examples=SIZE, digest=digest, notes=[]
    )
    evidence = Evidence(
        tasks=[found],
        contrasts=[],
        regressions=[],
        generations=[],
        confidence=0.95,
        num_resamples=10_000,
    )
    report = report.model_copy(update={"models": rows, "evidence": evidence})
    (run / "report.json").write_text(report.model_dump_json())
    (run / "artifacts.json").write_text(json.dumps(names))


@pytest.fixture
def two(shelf: Any) -> tuple[Path, Path]:
    """Two runs of a float model and a PTQ one each."""
    return shelf.put("a", {"tuned": 1.0, "ptq-rtn": 1.2}), shelf.put(
        "b", {"tuned": 1.1, "ptq-gptq": 1.15}
    )


def test_models_of_equal_examples_are_paired_the_best_first(two: tuple[Path, Path]) -> None:
    give_task(two[0], {"tuned": 40, "ptq-rtn": 20})
    give_task(two[1], {"tuned": 35, "ptq-gptq": 30})
    (found,) = compare(two).tasks
    assert [row.model for row in found.rows] == ["a/tuned", "b/tuned", "b/ptq-gptq", "a/ptq-rtn"]
    assert found.runs == ["a", "b"]
    assert found.unpaired is None
    best, *others = [row.behind for row in found.rows]
    assert best is None
    for behind, value in zip(others, (-0.1, -0.2, -0.4), strict=True):
        assert behind is not None
        assert behind.value == pytest.approx(value)
        assert behind.low < value < behind.high
    text = markdown.render(compare(two))
    assert "gsm8k: 50 examples" in text
    assert "-20.00 points" in text


def test_examples_that_are_gone_leave_the_numbers_and_say_so(two: tuple[Path, Path]) -> None:
    give_task(two[0], {"tuned": 40, "ptq-rtn": 20})
    give_task(two[1], {"tuned": 35, "ptq-gptq": 30}, keep=False)
    (found,) = compare(two).tasks
    assert len(found.rows) == 4
    assert all(row.behind is None for row in found.rows)
    assert found.unpaired is not None
    assert "examples of b are not at hand" in words.task_remark(found)


def test_other_examples_are_not_set_side_by_side(two: tuple[Path, Path]) -> None:
    give_task(two[0], {"tuned": 40, "ptq-rtn": 20})
    give_task(two[1], {"tuned": 35, "ptq-gptq": 30}, digest="e" * 64)
    assert compare(two).tasks == []


def test_a_model_that_a_run_has_reused_stands_once(two: tuple[Path, Path]) -> None:
    give_task(two[0], {"tuned": 40, "ptq-rtn": 20})
    give_task(two[1], {"tuned": 40, "ptq-gptq": 30})
    first, second = open_runs(two)
    reused = {**second.fingerprints, "tuned": first.fingerprints["tuned"]}
    same: Opened = replace(second, fingerprints=reused)
    (found,) = tasks.compare([first, same])
    assert [row.model for row in found.rows] == ["a/tuned", "b/ptq-gptq", "a/ptq-rtn"]
