"""Whole recipes in two processes, held against the same recipes in one."""

from __future__ import annotations

import json
import re
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest
from several import LAUNCHER, Ended, Pair, Start, ended, environment, free_port, wait_until, workers

from quantship.recipe import load

if TYPE_CHECKING:
    from quantship.pipeline import Event, RunResult

Outcome = Callable[["RunResult"], dict[str, Any]]

SOON_S = 30
"""Ten seconds, a step, and what a busy machine takes to end three processes."""
INTERRUPTED = "Interrupted. The same command resumes where it stopped."
MODEL = """\
model:
  tiny: {hidden_size: 64, intermediate_size: 96, num_layers: 2, num_heads: 2, num_kv_heads: 1,
         max_positions: 128}
"""
DATA = """\
data:
  train: [{adapter: builtin, num_examples: 48}]
  eval: [{adapter: builtin, split: eval, num_examples: 8}]
  max_length: 96
"""
SWEEP = f"""\
{MODEL}{DATA}
steps:
  - {{stage: quantize, name: a, scheme: w8a8}}
  - {{stage: quantize, name: b, scheme: w4a16-g32}}
  - {{stage: quantize, name: c, scheme: w4a16-g32, algorithm: gptq}}
  - {{stage: export, input: [model, a]}}
evaluation: {{parity_sequences: 4}}
benchmark: null
"""
NUM_JOBS = 13
TRAINING = f"""\
{MODEL}{DATA}
steps:
  - {{stage: finetune, max_steps: 400, save_steps: 100, learning_rate: 1.0e-3}}
  - {{stage: quantize, name: ptq, input: finetune, scheme: w8a8}}
  - {{stage: qat, input: finetune, scheme: w4a16-g32, max_steps: 4, learning_rate: 1.0e-3}}
  - {{stage: export, input: [qat]}}
gates: [codes_equal: true]
benchmark: null
"""


def run(recipe: Path, root: Path, notify: Callable[[Event], None]) -> RunResult:
    """Run in this process."""
    from quantship import pipeline

    return pipeline.run(load(recipe), root, notify)


def arguments(recipe: Path, root: Path, *more: str) -> tuple[str | Path, ...]:
    return ("-m", "quantship", "run", recipe, "--artifacts", root, *more)


def measured(result: RunResult) -> dict[str, dict[str, str]]:
    """Digests of the files of every evaluation, but for the one that says when it was made."""
    return {
        name: {file: digest for file, digest in made.files.items() if file != "lock.json"}
        for name, made in result.artifacts.items()
        if made.stage == "evaluate"
    }


def lines(out: str, word: str) -> dict[str, str]:
    """What is said of each job that this happened to, by its name."""
    found = re.findall(rf"^[✓▸✗] (\S.*?) +{word}(.*)$", out, re.MULTILINE)
    assert len({name for name, _ in found}) == len(found)
    return dict(found)


def failures(both: list[Ended], code: int) -> str:
    """What two processes said that ended with this code."""
    assert [one.code for one in both] == [code, code], both
    return "".join(one.err for one in both)


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recipe without training."""
    recipe = tmp_path_factory.mktemp("sweep") / "sweep.yaml"
    recipe.write_text(SWEEP)
    return recipe


@pytest.fixture(scope="module")
def swept(sweep: Path) -> tuple[Path, Ended]:
    """Where two processes have run it, and what they said; not to be written to."""
    import sys

    root = sweep.parent / "two"
    done = subprocess.run(
        [sys.executable, *LAUNCHER, *map(str, arguments(sweep, root))],
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    return root, Ended(done.returncode, done.stdout, done.stderr)


def test_a_sweep_is_dealt_out(swept: tuple[Path, Ended]) -> None:
    _, done = swept
    assert done.code == 0, done
    assert "2 processes on 1 machine, each with 1 thread" in done.out
    jobs = lines(done.out, "done")
    assert lines(done.out, "running").keys() == jobs.keys()
    assert len(jobs) == NUM_JOBS
    who = [re.search(r"process (\d)", line) for line in jobs.values()]
    assert {one[1] for one in who if one is not None} == {"0", "1"}


def test_two_processes_make_what_one_makes(
    sweep: Path, swept: tuple[Path, Ended], one_thread: None, outcome: Outcome
) -> None:
    events: list[Event] = []
    alone = run(sweep, sweep.parent / "one", events.append)
    assert all(event.process is None for event in events)
    again: list[Event] = []
    both = run(sweep, swept[0], again.append)
    assert {event.kind for event in again} == {"reused"}
    assert outcome(both) == outcome(alone)
    assert list(both.artifacts) == list(alone.artifacts)
    one, two = (result.report_dir / "artifacts.json" for result in (alone, both))
    assert one.read_text() == two.read_text()
    assert measured(both) == measured(alone) != {}


def test_accelerate_launches_it_and_nothing_runs_again(
    sweep: Path, swept: tuple[Path, Ended], start: Start
) -> None:
    launch = ("-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2")
    port = ("--main_process_port", free_port())
    done = ended(start(*launch, *port, *arguments(sweep, swept[0])))
    assert done.code == 0, done
    assert len(lines(done.out, "reused")) == NUM_JOBS
    assert "running" not in done.out
    assert "2 processes" in done.out


def test_two_launchers_meet_as_on_two_machines(
    sweep: Path, swept: tuple[Path, Ended], start: Start
) -> None:
    meeting = ("--rdzv-backend=static", f"--rdzv-endpoint=127.0.0.1:{free_port()}")
    each = ("-m", "quantship.launch", "--nnodes=2", "--nproc-per-node=1", *meeting)
    command = arguments(sweep, swept[0])[2:]
    both = [start(*each, f"--node-rank={rank}", *command) for rank in range(2)]
    first, second = (ended(process) for process in both)
    assert (first.code, second.code) == (0, 0), (first, second)
    assert len(lines(first.out, "reused")) == NUM_JOBS
    assert second.out == ""


def test_what_only_shows_is_shown_once(
    sweep: Path, swept: tuple[Path, Ended], torchrun: Start
) -> None:
    done = ended(torchrun(*arguments(sweep, swept[0], "--plan")))
    assert done.code == 0, done
    assert done.out.count(f"0 to run, {NUM_JOBS} reused") == 1


def test_a_recipe_that_is_wrong_is_told_once(pair: Pair, tmp_path: Path) -> None:
    recipe = tmp_path / "wrong.yaml"
    recipe.write_text(SWEEP.replace("w8a8", "w9a9"))
    command = arguments(recipe, tmp_path / "artifacts")
    said = failures([ended(process) for process in pair(command, command)], 2)
    assert said.count("w9a9") == 1
    assert not (tmp_path / "artifacts").exists()


def test_processes_that_keep_artifacts_apart_are_refused(
    sweep: Path, pair: Pair, tmp_path: Path
) -> None:
    both = pair(arguments(sweep, tmp_path / "here"), arguments(sweep, tmp_path / "there"))
    said = failures([ended(process) for process in both], 2)
    assert said.count("All must see the same one") == 1
    assert "process 0 is not the one of process 1" in said
    assert [path.name for path in (tmp_path / "here").iterdir()] == [".lock"]


def test_what_runs_beside_a_job_that_fails_is_kept(pair: Pair, tmp_path: Path) -> None:
    bad = tmp_path / "bad.jsonl"
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    good = json.dumps({"messages": turns})
    bad.write_text(f"{good}\nthis is no record\n")
    recipe = tmp_path / "fails.yaml"
    recipe.write_text(
        SWEEP.replace("{adapter: builtin, num_examples: 48}", f"{{adapter: chat, path: {bad}}}")
    )
    command = arguments(recipe, tmp_path / "artifacts")
    found = [ended(process) for process in pair(command, command)]
    said = failures(found, 3)
    assert said.count("step 'data' failed") == 1, found
    assert f"{bad}:2" in said
    kept = [path.name for path in (tmp_path / "artifacts" / "steps").glob("quantize-*")]
    assert len(kept) == 2
    assert not any(name.endswith(".partial") for name in kept)


def test_a_training_that_fails_in_all_of_them_is_told_once(pair: Pair, tmp_path: Path) -> None:
    recipe = tmp_path / "diverges.yaml"
    step = "{stage: finetune, max_steps: 9, learning_rate: 1.0e+30}"
    recipe.write_text(f"{MODEL}{DATA}\nsteps: [{step}]\nevaluation: null\nbenchmark: null\n")
    command = arguments(recipe, tmp_path / "artifacts")
    found = [ended(process) for process in pair(command, command)]
    said = failures(found, 3)
    assert said.count("step 'finetune' failed") == 1, found
    assert "a smaller learning_rate" in said


def test_a_training_in_two_processes_is_stopped_loses_one_of_them_and_is_ended_by_one(
    torchrun: Start, tmp_path: Path, one_thread: None
) -> None:
    recipe = tmp_path / "training.yaml"
    recipe.write_text(TRAINING)
    root = tmp_path / "artifacts"
    steps = root / "steps"

    def checkpoints() -> set[str]:
        return {path.name for path in steps.glob("finetune-*.resume/checkpoint-*")}

    launcher = torchrun(*arguments(recipe, root))
    wait_until(lambda: bool(checkpoints()), launcher)
    both = workers(launcher)
    launcher.send_signal(signal.SIGTERM)
    done = ended(launcher, SOON_S)
    assert done.err.count(INTERRUPTED) == 1, done
    assert not any(psutil.pid_exists(one.pid) for one in both.values())
    saved = checkpoints()

    launcher = torchrun(*arguments(recipe, root))
    wait_until(lambda: bool(checkpoints() - saved), launcher)
    workers(launcher)[1].kill()
    done = ended(launcher, SOON_S)
    assert done.err.count("process 1 of 2 has ended without a word") == 1, done
    assert INTERRUPTED not in done.err

    events: list[Event] = []
    result = run(recipe, root, events.append)
    reused = [event.step for event in events if event.kind == "reused"]
    assert reused == ["model", "data", "evaluate model"]
    stopped_at = max(int(name.split("-")[1]) for name in saved)
    # The kill may have come before the next checkpoint was whole.
    assert result.artifacts["finetune"].facts["training"]["resumed_from"] >= stopped_at
    assert all(gate.passed for gate in result.report.gates)


def test_two_processes_train_and_report_as_one_does(
    torchrun: Start, tmp_path: Path, one_thread: None
) -> None:
    recipe = tmp_path / "training.yaml"
    recipe.write_text(TRAINING.replace("400", "10"))
    done = ended(torchrun(*arguments(recipe, tmp_path / "two")))
    assert (done.code, done.err) == (0, ""), done
    alone = run(recipe, tmp_path / "one", lambda event: None)
    again: list[Event] = []
    both = run(recipe, tmp_path / "two", again.append)
    assert {event.kind for event in again} == {"reused"}
    one, two = (result.report_dir / "artifacts.json" for result in (alone, both))
    assert one.read_text() == two.read_text()
    losses = [
        [point["loss"] for point in result.artifacts["finetune"].facts["training"]["points"]]
        for result in (alone, both)
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    assert [gate.passed for gate in both.report.gates] == [True] * len(alone.report.gates)
