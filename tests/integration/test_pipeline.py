"""Whole runs of a small recipe: what is made, what is reused, what is said when it fails."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from filelock import FileLock

from quantship import artifact, pipeline
from quantship.artifact import MANIFEST
from quantship.errors import QuantshipError, StageError, UsageError
from quantship.recipe import load
from quantship.reporting.schema import Report

if TYPE_CHECKING:
    from quantship.pipeline import RunResult

MODELS = ["model", "finetune", "ptq", "qat"]
EXPORTS = [f"{name}-onnx" for name in MODELS]
JOBS = [
    *("model", "data", "finetune", "ptq", "qat", *EXPORTS),
    *(f"evaluate {name}" for name in MODELS + EXPORTS),
]

Outcome = Callable[["RunResult"], dict[str, Any]]


@pytest.fixture
def copy(undisturbed: Any, runner: Any) -> Any:
    """A finished run in another place than where it was made, which may be written to."""
    shutil.copytree(undisturbed.root, runner.root, symlinks=True)
    return runner


def state(root: Path) -> dict[str, tuple[bytes, int]]:
    """Content and time of every file of every artifact."""
    files = (path for path in (root / "steps").rglob("*") if path.is_file())
    return {str(path): (path.read_bytes(), path.stat().st_mtime_ns) for path in files}


def test_a_first_run_makes_everything(undisturbed: Any) -> None:
    kinds = [(event.kind, event.step) for event in undisturbed.events]
    assert kinds == [(kind, name) for name in JOBS for kind in ("started", "finished")]
    assert all(event.seconds >= 0 for event in undisturbed.events if event.kind == "finished")
    assert list(undisturbed.result.artifacts) == JOBS
    left = sorted(path.name for path in (undisturbed.root / "steps").iterdir())
    assert left == sorted(made.path.name for made in undisturbed.result.artifacts.values())


def test_a_second_run_reuses_everything_though_all_was_moved(
    copy: Any, undisturbed: Any, outcome: Outcome
) -> None:
    shutil.rmtree(copy.root / "runs")
    before = state(copy.root)
    result = copy()
    assert copy.events == [("reused", name) for name in JOBS]
    assert state(copy.root) == before
    assert outcome(result) == outcome(undisturbed.result)
    for name in ("report.json", "report.md", "report.html"):
        assert (copy.root / "runs" / "small" / name).stat().st_size > 1000
    again, first = result.report.model_dump(), undisturbed.result.report.model_dump()
    for key in ("models", "training", "data", "recipe", "notes", "environment"):
        assert again[key] == first[key]


def test_no_artifact_knows_where_it_lies(undisturbed: Any) -> None:
    for manifest in undisturbed.root.glob(f"steps/*/{MANIFEST}"):
        assert str(undisturbed.root.parent) not in manifest.read_text()


def test_a_changed_learning_rate_redoes_its_step_and_what_follows(copy: Any) -> None:
    kept = state(copy.root)
    copy("steps.qat.learning_rate=2e-3")
    assert copy.happened("finished") == ["qat", "qat-onnx", "evaluate qat", "evaluate qat-onnx"]
    assert copy.happened("reused") == [name for name in JOBS if "qat" not in name]
    assert state(copy.root).items() >= kept.items()
    copy()
    assert copy.events == [("reused", name) for name in JOBS], "and what was is there still"


@pytest.mark.parametrize("damage", ["truncated", "manifest", "changed", "gone"])
def test_what_was_damaged_is_made_again_and_the_rest_reused(
    damage: str, copy: Any, undisturbed: Any, outcome: Outcome
) -> None:
    path = copy.root / "steps" / undisturbed.result.artifacts["ptq"].path.name
    weights = path / "model.safetensors"
    if damage == "truncated":
        os.truncate(weights, weights.stat().st_size - 1)
    elif damage == "manifest":
        os.truncate(path / MANIFEST, 100)
    elif damage == "changed":
        content = bytearray(weights.read_bytes())
        content[-1] ^= 1
        weights.write_bytes(content)
    else:
        shutil.rmtree(path)
    planned = {step.name for step in pipeline.plan(load(copy.recipe), copy.root) if not step.reused}
    assert planned == {"ptq"}
    result = copy()
    # What was made of the sound one is sound still: it has the same fingerprint.
    assert copy.happened("finished") == ["ptq"]
    assert outcome(result) == outcome(undisturbed.result)


def test_two_roots_give_the_same_to_the_bit(
    runner: Any, undisturbed: Any, outcome: Outcome
) -> None:
    result = runner()
    assert runner.happened("reused") == []
    assert outcome(result) == outcome(undisturbed.result)
    assert "qat: codes of model.embed_tokens" in outcome(result)


def test_a_plan_says_what_a_run_does_and_does_nothing(
    runner: Any, undisturbed: Any, copy: Any
) -> None:
    recipe, nowhere = load(runner.recipe), runner.root.with_name("nowhere")
    ahead = pipeline.plan(recipe, nowhere)
    assert not nowhere.exists()
    assert [(step.name, step.reused) for step in ahead] == [(name, False) for name in JOBS]
    before = state(copy.root)
    behind = pipeline.plan(recipe, copy.root)
    assert [(step.name, step.reused) for step in behind] == [(name, True) for name in JOBS]
    assert state(copy.root) == before
    for step in behind:
        assert step.path == copy.root / "steps" / undisturbed.result.artifacts[step.name].path.name


def test_estimates_are_near_what_models_take(copy: Any) -> None:
    for step in pipeline.plan(load(copy.recipe), copy.root):
        if step.stage in ("tiny", "quantize", "export"):
            actual = artifact.size_bytes(step.path)
            assert step.disk_bytes is not None
            assert 0.3 < step.disk_bytes / actual < 1.5, step.name


# The report


def test_the_report_has_a_row_for_every_model(undisturbed: Any) -> None:
    rows = {row.name: row for row in undisturbed.result.report.models}
    assert list(rows) == MODELS + EXPORTS
    kinds = {name: row.kind for name, row in rows.items()}
    assert kinds == {
        **dict.fromkeys(("model", "finetune"), "float"),
        **dict.fromkeys(("ptq", "qat"), "torchao"),
        **dict.fromkeys(EXPORTS, "onnx"),
    }
    schemes = {name: row.scheme for name, row in rows.items() if row.scheme}
    assert schemes == {
        **dict.fromkeys(("ptq", "ptq-onnx"), "w8a8"),
        **dict.fromkeys(("qat", "qat-onnx"), "w4a16-g32"),
    }
    for row in rows.values():
        assert row.metrics is not None
        assert row.metrics.num_tokens == rows["model"].metrics.num_tokens
        assert row.benchmark is None
        assert (undisturbed.root / row.path).is_dir()
        assert row.size_bytes > 0


def test_every_quantized_matrix_was_compared(undisturbed: Any) -> None:
    """Seven matrices a layer, two layers, and the embedding, which is the head as well."""
    rows = {row.name: row for row in undisturbed.result.report.models}
    for name in ("ptq", "qat", "ptq-onnx", "qat-onnx"):
        parity = rows[name].parity
        assert parity is not None
        assert parity.codes_equal is True
        assert parity.tensors_compared == 2 * 7 + 1
        assert parity.top1_agreement > 0.9
    for name in ("ptq", "qat"):
        assert rows[name].parity.max_abs_logit_diff == 0
    for name in ("model", "finetune"):
        assert rows[name].parity is None
        parity = rows[f"{name}-onnx"].parity
        assert parity is not None
        assert (parity.codes_equal, parity.tensors_compared) == (None, 0)
        assert parity.reference == name
        assert parity.max_abs_logit_diff < 1e-4


def test_the_same_model_measures_the_same_on_either_runtime(undisturbed: Any) -> None:
    rows = {row.name: row for row in undisturbed.result.report.models}
    for name in MODELS:
        here, there = rows[name].metrics, rows[f"{name}-onnx"].metrics
        assert here is not None
        assert there is not None
        assert there.perplexity == pytest.approx(here.perplexity, rel=0.005)
    assert rows["finetune"].metrics.perplexity < 0.9 * rows["model"].metrics.perplexity


def test_the_loss_curve_ends_with_the_training(undisturbed: Any) -> None:
    curves = {curve.step: curve for curve in undisturbed.result.report.training}
    assert {name: curve.scheme for name, curve in curves.items()} == {
        "finetune": None,
        "qat": "w4a16-g32",
    }
    assert [point.step for point in curves["finetune"].points] == [5, 10, 15, 20, 24]
    assert curves["finetune"].points[-1].loss < curves["finetune"].points[0].loss
    assert all(curve.resumed_from is None for curve in curves.values())


def test_report_json_is_the_report(undisturbed: Any) -> None:
    file = undisturbed.result.report_dir / "report.json"
    assert Report.model_validate_json(file.read_text()) == undisturbed.result.report
    assert undisturbed.result.report_dir == undisturbed.root / "runs" / "small"


def test_the_report_names_no_place_but_those_the_user_gave(undisturbed: Any) -> None:
    report = (undisturbed.result.report_dir / "report.json").read_text()
    assert str(undisturbed.root.parent) not in report


def test_the_report_names_the_places_that_the_user_gave(
    runner: Any, tmp_path: Path, tiny_model_dir: Path
) -> None:
    recipe = tmp_path / "given.yaml"
    recipe.write_text(
        f"model: {tiny_model_dir}\n"
        f"data: {{eval: [{{adapter: chat, path: {write_chats(tmp_path / 'chats.jsonl')}}}]}}\n"
        "steps: [{stage: quantize, scheme: w8a8}]\n"
        "benchmark: null\n"
    )
    report = runner(recipe=recipe).report
    assert report.recipe["model"]["path"] == str(tiny_model_dir)
    by_name = {row.name: row for row in report.models}
    assert by_name["model"].path == str(tiny_model_dir)
    assert not Path(by_name["quantize"].path).is_absolute()
    assert str(tmp_path) not in json.dumps(report.data)
    links = runner.root / "runs" / "given" / "models"
    assert [link.name for link in links.iterdir()] == ["quantize"]


def test_links_lead_to_the_models_even_after_a_move(undisturbed: Any, copy: Any) -> None:
    for root in (undisturbed.root, copy.root):
        links = {link.name: link for link in (root / "runs" / "small" / "models").iterdir()}
        assert links.keys() == set(MODELS + EXPORTS)
        for name, link in links.items():
            assert link.is_symlink()
            made = root / "steps" / undisturbed.result.artifacts[name].path.name
            assert link.resolve() == made.resolve()


def test_links_of_models_that_are_gone_from_the_recipe_go(copy: Any, tmp_path: Path) -> None:
    copy("steps.3.input=[ptq]")
    assert {link.name for link in (copy.root / "runs" / "small" / "models").iterdir()} == {
        *MODELS,
        "ptq-onnx",
    }


# What goes wrong


def write_chats(path: Path, *, broken_line: int | None = None) -> Path:
    lines = [
        json.dumps(
            {
                "messages": [
                    {"role": "user", "content": f"Say {number}."},
                    {"role": "assistant", "content": str(number)},
                ]
            }
        )
        for number in range(1, 13)
    ]
    if broken_line is not None:
        lines[broken_line - 1] = '{"messages": "none"}'
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture
def chat_recipe(runner: Any, tmp_path: Path) -> Path:
    """The small recipe, trained on chats.jsonl beside it, without exports."""
    text = runner.recipe.read_text().replace(
        "{adapter: builtin, num_examples: 48}",
        f"{{adapter: chat, path: {tmp_path / 'chats.jsonl'}}}",
    )
    text = "\n".join(line for line in text.splitlines() if "stage: export" not in line)
    path = tmp_path / "chats.yaml"
    path.write_text(text.replace("max_steps: 24", "max_steps: 4"))
    return path


def test_a_malformed_record_is_named_and_its_correction_goes_on(
    runner: Any, chat_recipe: Path, tmp_path: Path
) -> None:
    chats = write_chats(tmp_path / "chats.jsonl", broken_line=7)
    with pytest.raises(StageError) as caught:
        runner(recipe=chat_recipe)
    assert caught.value.step == "data"
    assert f"{chats}:7: " in str(caught.value)
    assert "step 'data' failed" in str(caught.value)
    assert runner.events == [
        *(("started", "model"), ("finished", "model")),
        *(("started", "data"), ("failed", "data")),
    ]
    partial = caught.value.partial
    assert partial is not None
    assert partial.name.endswith(".partial")
    assert "DataError" in (partial / "error.log").read_text()
    assert not (runner.root / "runs").exists()
    write_chats(chats)
    runner(recipe=chat_recipe)
    assert runner.happened("reused") == ["model"]
    assert "finetune" in runner.happened("finished")


def test_the_same_failure_comes_again_until_it_is_corrected(
    runner: Any, chat_recipe: Path, tmp_path: Path
) -> None:
    write_chats(tmp_path / "chats.jsonl")
    for _ in range(2):
        with pytest.raises(StageError, match="nothing to use in 12 records: 12 are over") as caught:
            runner("data.max_length=3", recipe=chat_recipe)
        assert caught.value.partial is not None
        assert [path.name for path in caught.value.partial.iterdir()] == ["error.log"]
    runner("data.max_length=64", recipe=chat_recipe)
    assert runner.happened("reused") == ["model"]


def test_a_training_that_diverges_is_no_internal_error(
    runner: Any, chat_recipe: Path, tmp_path: Path
) -> None:
    write_chats(tmp_path / "chats.jsonl")
    with pytest.raises(StageError, match="learning_rate") as caught:
        runner("steps.finetune.learning_rate=1e30", recipe=chat_recipe)
    assert caught.value.step == "finetune"
    runner(recipe=chat_recipe)
    assert runner.happened("reused") == ["model", "data"]


def test_facts_that_cannot_be_kept_fail_the_stage(
    copy: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from quantship.stages import evaluate

    monkeypatch.setattr(evaluate, "run", lambda job: {"metrics": {"perplexity": float("nan")}})
    with pytest.raises(StageError, match="step 'evaluate model' failed: ValueError"):
        copy("evaluation.limit=2")
    assert copy.happened("failed") == ["evaluate model"]
    monkeypatch.undo()
    copy("evaluation.limit=2")
    assert copy.happened("started") == [name for name in JOBS if name.startswith("evaluate")]


def test_one_root_serves_one_run_at_a_time(copy: Any) -> None:
    holder = subprocess.Popen(
        [
            *(sys.executable, "-c"),
            "import filelock, sys; lock = filelock.FileLock(sys.argv[1]); lock.acquire(); "
            "print('held', flush=True); sys.stdin.read()",
            str(copy.root / ".lock"),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    before = state(copy.root)
    with pytest.raises(UsageError, match="another run is using"):
        copy()
    assert copy.events == []
    assert state(copy.root) == before
    holder.kill()  # and a killed run holds nothing
    holder.communicate()
    copy()
    assert len(copy.happened("reused")) == len(JOBS)


def test_a_run_that_fails_gives_its_root_back(copy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(StageError) as caught:
        copy("data.max_length=3")
    assert caught.value.__traceback__ is not None  # which keeps what the run knew alive
    with FileLock(copy.root / ".lock").acquire(timeout=0):
        pass
    copy()


def test_a_root_that_cannot_be_written_to_is_the_users_error(runner: Any, tmp_path: Path) -> None:
    runner.root = tmp_path / "small.yaml"
    with pytest.raises(UsageError, match=r"artifacts cannot be kept in .*small\.yaml"):
        runner()


def test_only_quantship_errors_leave_a_stage(copy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from quantship.stages import quantize

    def fail(job: object) -> None:
        raise RuntimeError("out of luck")

    monkeypatch.setattr(quantize, "run", fail)
    with pytest.raises(QuantshipError, match="step 'ptq' failed: RuntimeError: out of luck"):
        copy("steps.ptq.scheme=w8a16")
    (partial,) = (copy.root / "steps").glob("*.partial")
    assert "out of luck" in (partial / "error.log").read_text()
