"""Training that is killed or stopped, and where a later run goes on. More: tests/e2e/faults."""

from __future__ import annotations

import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from quantship.checkpoints import SEAL

if TYPE_CHECKING:
    from quantship.pipeline import RunResult

TIMEOUT_S = 120

Outcome = Callable[["RunResult"], dict[str, Any]]


def wait_until(condition: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    """Look every millisecond; fail when the process ends before it has come so far."""
    deadline = time.monotonic() + TIMEOUT_S
    while not condition():
        if process.poll() is not None:
            pytest.fail(f"it ended too early: {process.communicate()}")
        assert time.monotonic() < deadline
        time.sleep(0.001)


def kill(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL


def is_complete(checkpoint: Path) -> bool:
    return (checkpoint / SEAL).exists()


def step(checkpoint: Path) -> int:
    return int(checkpoint.name.split("-")[1])


def checkpoints(resume: Path) -> list[Path]:
    """Trainer's checkpoints, the newest one last."""
    return sorted(resume.glob("checkpoint-*"), key=step)


@pytest.fixture
def trainer(runner: Any, undisturbed: Any) -> Any:
    """A runner whose next job is the fine-tuning, of 24 steps with a checkpoint every two."""
    for name in ("model", "data"):
        made = undisturbed.result.artifacts[name].path
        shutil.copytree(made, runner.root / "steps" / made.name)
    return runner


@pytest.fixture
def resume(runner: Any, undisturbed: Any) -> Path:
    """Where that fine-tuning keeps its checkpoints."""
    final = undisturbed.result.artifacts["finetune"].path.name
    return Path(runner.root / "steps" / f"{final}.resume")


def test_a_killed_training_goes_on_from_its_last_sound_checkpoint(
    trainer: Any, resume: Path, undisturbed: Any, outcome: Outcome
) -> None:
    process = trainer.start()
    wait_until(lambda: sum(map(is_complete, checkpoints(resume))) == 2, process)
    kill(process)
    kept = trainer.root.with_name("kept")
    shutil.copytree(trainer.root, kept)
    for damage in ("none", "truncated", "missing"):
        shutil.rmtree(trainer.root)
        shutil.copytree(kept, trainer.root)
        *_, before, newest = filter(is_complete, checkpoints(resume))
        state = newest / "trainer_state.json"
        if damage == "truncated":
            state.write_bytes(state.read_bytes()[:-50])
        elif damage == "missing":
            state.unlink()
        result = trainer()
        facts = result.artifacts["finetune"].facts["training"]
        assert facts["resumed_from"] == step(newest if damage == "none" else before)
        assert facts["num_steps"] == 24
        assert outcome(result) == outcome(undisturbed.result)
        (curve,) = (curve for curve in result.report.training if curve.step == "finetune")
        assert curve.resumed_from == facts["resumed_from"]
        assert not resume.exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
def test_a_stopped_training_says_goodbye_and_goes_on_later(
    number: signal.Signals, trainer: Any, resume: Path, undisturbed: Any, outcome: Outcome
) -> None:
    process = trainer.start()
    wait_until(lambda: any(map(is_complete, checkpoints(resume))), process)
    process.send_signal(number)
    sent = time.monotonic()
    _, complaint = process.communicate(timeout=TIMEOUT_S)
    assert time.monotonic() - sent < 10
    assert process.returncode == 130
    assert complaint == "Interrupted. The same command resumes where it stopped.\n"
    newest = checkpoints(resume)[-1]
    assert is_complete(newest)
    result = trainer()
    assert trainer.happened("reused") == ["model", "data"]
    facts = result.artifacts["finetune"].facts["training"]
    assert facts["resumed_from"] == step(newest)
    assert outcome(result) == outcome(undisturbed.result)
