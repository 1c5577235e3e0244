"""The quickstart, as a user types it; its smoke profile, whose numbers mean nothing."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import quantship
from quantship.reporting.schema import Report

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_thread")]
RUNTIMES = {"float": "torch", "torchao": "torchao", "onnx": "onnxruntime"}
COMMAND = ("run", "quickstart", "--profile", "smoke")


@dataclass(frozen=True)
class Session:
    """What a user sees, typing four commands in a new folder."""

    folder: Path
    plan_before: str
    left_by_plan: list[str]
    first: str
    second: str
    plan_after: str


def type_in(folder: Path, *arguments: str) -> str:
    """Run quantship with these arguments; what it prints, where all went well."""
    done = subprocess.run(
        [sys.executable, "-m", "quantship", *arguments],
        cwd=folder,
        # One thread: on matrices this small, several spend their time waiting.
        env=os.environ
        | {
            "OMP_NUM_THREADS": "1",
            "MKL_NUM_THREADS": "1",
            "PYTHONPATH": str(Path(quantship.__file__).parents[1]),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Session:
    folder = tmp_path_factory.mktemp("user")
    plan_before = type_in(folder, *COMMAND, "--plan")
    left_by_plan = [path.name for path in folder.iterdir()]
    return Session(
        folder=folder,
        plan_before=plan_before,
        left_by_plan=left_by_plan,
        first=type_in(folder, *COMMAND),
        second=type_in(folder, *COMMAND),
        plan_after=type_in(folder, *COMMAND, "--plan"),
    )


@pytest.fixture(scope="module")
def report(session: Session) -> Report:
    path = session.folder / "artifacts" / "runs" / "quickstart" / "report.json"
    return Report.model_validate_json(path.read_text())


def test_a_plan_comes_first_and_leaves_nothing(session: Session) -> None:
    assert session.left_by_plan == []
    assert "▸ runs" in session.plan_before
    assert "✓ reused" not in session.plan_before
    assert re.search(r"^\d+ to run, 0 reused; about .+ to write", session.plan_before, re.MULTILINE)


def test_the_screen_shows_every_job_the_table_and_the_report(
    session: Session, report: Report
) -> None:
    lines = session.first.splitlines()
    started = [line.split(" running")[0][2:].rstrip() for line in lines if line.startswith("▸ ")]
    assert started[:3] == ["model", "data", "finetune"]
    assert started[-1] == "benchmark"
    for name in started:
        assert re.search(rf"^✓ {re.escape(name)} +done \d", session.first, re.MULTILINE)
    assert "quickstart: models" in session.first
    table = session.first.split("quickstart: models")[1]
    assert all(row.name in table for row in report.models)
    assert lines[-1] == "Report: artifacts/runs/quickstart/report.html"
    assert "Warning" not in session.first


def test_a_second_run_reuses_everything_and_shows_the_same(session: Session) -> None:
    assert "running" not in session.second
    jobs = re.findall(r"^✓ (.+?) +done", session.first, re.MULTILINE)
    assert re.findall(r"^✓ (.+?) +reused", session.second, re.MULTILINE) == jobs
    assert (
        session.second.split("quickstart: models")[1]
        == (session.first.split("quickstart: models")[1])
    )


def test_a_plan_of_what_is_done_has_nothing_to_do(session: Session) -> None:
    assert "▸ runs" not in session.plan_after
    assert re.search(r"^0 to run, \d+ reused", session.plan_after, re.MULTILINE)


def test_the_report_is_there_in_three_forms(session: Session, report: Report) -> None:
    folder = session.folder / "artifacts" / "runs" / "quickstart"
    page = (folder / "report.html").read_text()
    assert page.lstrip().lower().startswith("<!doctype html>")
    assert "<svg" in page
    table = (folder / "report.md").read_text()
    for row in report.models:
        assert row.name in page
        assert row.name in table


def test_every_model_is_measured_and_none_ships_other_integers(report: Report) -> None:
    dimensions: Any = report.recipe["model"]
    num_matrices = 7 * dimensions["tiny"]["num_layers"] + 1  # the embedding is the head as well
    assert {row.kind for row in report.models} == {"float", "torchao", "onnx"}
    assert {row.group for row in report.models} == {"baseline", "finetune", "ptq", "qat"}
    for row in report.models:
        assert row.metrics is not None
        assert row.benchmark is not None
        assert row.benchmark.decode_tokens_per_s > 0
        assert row.benchmark.runtime == RUNTIMES[row.kind]
        if row.scheme is not None:
            assert row.parity is not None
            assert row.parity.codes_equal is True
            assert row.parity.tensors_compared == num_matrices
            assert row.compression is not None
            assert row.compression > 3


def test_checkpoints_load_with_plain_transformers(session: Session, report: Report) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    models = session.folder / "artifacts" / "runs" / "quickstart" / "models"
    checkpoints = [row for row in report.models if row.kind != "onnx"]
    assert len(checkpoints) >= 6
    for row in checkpoints:
        model: Any = AutoModelForCausalLM.from_pretrained(models / row.name)
        quantization = getattr(model.config, "quantization_config", None)
        assert (quantization is not None) == (row.kind == "torchao")
        tokenizer = AutoTokenizer.from_pretrained(models / row.name)
        chat = [{"role": "user", "content": "Please spell the word goat."}]
        tokens: Any = tokenizer.apply_chat_template(
            chat, add_generation_prompt=True, return_tensors="pt", return_dict=True
        )
        answer = model.generate(**tokens, max_new_tokens=2, do_sample=False)
        assert answer.shape[1] > tokens["input_ids"].shape[1]
        with torch.no_grad():
            assert torch.isfinite(model(**tokens).logits).all()
