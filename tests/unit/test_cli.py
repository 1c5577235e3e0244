from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import typer

import quantship
from quantship import cli, console, showing
from quantship.errors import QuantshipError, RecipeError, StageError, UsageError
from quantship.pipeline import Event, PlannedStep
from quantship.recipe.explain import schema_text

PLAIN = """\
model: {tiny: {}}
data: {train: [{adapter: builtin}], eval: [{adapter: builtin, split: eval}]}
steps: [{stage: finetune, max_steps: 3}]
profiles: {smoke: {seed: 1}}
"""


def quantship_command(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "quantship", *arguments]
    environment = os.environ | {"PYTHONPATH": str(Path(quantship.__file__).parents[1])}
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with one faultless recipe, my.yaml."""
    (tmp_path / "my.yaml").write_text(PLAIN)
    return tmp_path


def test_help_shows_the_commands_and_examples(folder: Path) -> None:
    done = quantship_command("--help", cwd=folder)
    assert done.returncode == 0
    for word in ("run", "check", "explain", "schema", "compare", "Examples:", "--profile smoke"):
        assert word in done.stdout


def test_no_arguments_show_the_help_as_wrong_usage(folder: Path) -> None:
    done = quantship_command(cwd=folder)
    assert done.returncode == 2
    assert "Usage: quantship" in done.stdout + done.stderr


def test_version(folder: Path) -> None:
    done = quantship_command("--version", cwd=folder)
    assert (done.returncode, done.stdout) == (0, f"quantship {quantship.__version__}\n")


def test_schema_prints_the_schema_and_nothing_else(folder: Path) -> None:
    assert quantship_command("schema", cwd=folder).stdout == schema_text()


def test_explain_prints_the_language(folder: Path) -> None:
    assert "profiles" in quantship_command("explain", cwd=folder).stdout
    assert "fake quantization" in quantship_command("explain", "steps.qat", cwd=folder).stdout
    wrong = quantship_command("explain", "qat", cwd=folder)
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert "Did you mean steps.qat?" in wrong.stderr


def test_check_says_what_it_checked_and_makes_nothing(folder: Path) -> None:
    done = quantship_command("check", "my.yaml", "--profile", "smoke", cwd=folder)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "✓ my.yaml: 1 steps: finetune\n"
    assert [path.name for path in folder.iterdir()] == ["my.yaml"]


def test_check_takes_settings_and_shipped_names(folder: Path) -> None:
    assert quantship_command("check", "quickstart", "--set", "seed=3", cwd=folder).returncode == 0
    wrong = quantship_command("check", "quickstart", "--set", "sed=3", cwd=folder)
    assert wrong.returncode == 2
    assert "Did you mean seed?" in wrong.stderr


@pytest.mark.parametrize("arguments", [["run", "my.yaml"], ["my.yaml"]])
def test_a_plan_is_shown_and_nothing_made(folder: Path, arguments: list[str]) -> None:
    done = quantship_command(*arguments, "--plan", "--artifacts", "here", cwd=folder)
    assert (done.returncode, done.stderr) == (0, "")
    assert "finetune" in done.stdout
    assert " 0 reused" in done.stdout
    assert [path.name for path in folder.iterdir()] == ["my.yaml"]


def test_compare_shows_its_forms_and_how_it_is_called(folder: Path) -> None:
    done = quantship_command("compare", "--help", cwd=folder)
    assert done.returncode == 0
    for word in ("Examples:", "--html", "--markdown", "--json", "quantship compare artifacts"):
        assert word in done.stdout


def test_compare_tells_what_is_missing_or_foreign_and_writes_nothing(folder: Path) -> None:
    done = quantship_command("compare", "gone", "my.yaml", "--html", "out.html", cwd=folder)
    assert (done.returncode, done.stdout) == (2, "")
    assert "gone: there is no such file" in done.stderr
    assert "my.yaml: is no JSON" in done.stderr
    assert [path.name for path in folder.iterdir()] == ["my.yaml"]


@pytest.mark.parametrize(
    ("word", "stands"),
    [
        ("my.yaml", True),
        ("gone.yml", True),
        ("my", True),
        ("quickstart", True),
        ("run", False),
        ("inspect", False),
        ("compare", False),
        ("chekc", False),
        ("--help", False),
    ],
)
def test_a_recipe_as_first_word_is_short_for_run(
    word: str, stands: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("my").touch()
    assert cli._stands_for_run(word) is stands


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (RecipeError([]), 2, ""),
        (UsageError("no such thing"), 2, "no such thing"),
        (QuantshipError("broken"), 3, "broken"),
        (StageError("qat", "out of [memory]"), 3, "step 'qat' failed: out of [memory]"),
        (KeyboardInterrupt(), 130, "The same command resumes"),
        (ZeroDivisionError("oh"), 1, "internal error: ZeroDivisionError: oh"),
        (SyntaxError("x"), 1, "--debug"),
    ],
)
def test_errors_become_messages_and_exit_codes(
    error: BaseException, code: int, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(typer.Exit) as caught, console.errors_shown(debug=False):
        raise error
    assert caught.value.exit_code == code
    out, err = capsys.readouterr()
    assert out == ""
    assert words in err
    assert "Traceback" not in err


@pytest.mark.parametrize(("error", "code"), [(UsageError("x"), 2), (ZeroDivisionError("x"), 1)])
def test_debug_shows_the_traceback_and_keeps_the_exit_code(
    error: Exception, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(typer.Exit) as caught, console.errors_shown(debug=True):
        raise error
    assert caught.value.exit_code == code
    assert "Traceback" in capsys.readouterr().err


def test_long_messages_are_not_wrapped(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(typer.Exit), console.errors_shown(debug=False):
        raise UsageError("/a/very/long/path " * 40)
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize(
    ("event", "line"),
    [
        (Event("reused", "qat", "qat"), "✓ qat                      reused"),
        (Event("started", "qat", "qat"), "▸ qat                      running"),
        (Event("finished", "qat", "qat", 12.34), "✓ qat                      done 12.3 s"),
        (Event("failed", "qat", "qat", 125.2), "✗ qat                      failed 2 min 05 s"),
        (Event("finished", "push", "push", None, "at x"), "✓ push                     done  at x"),
    ],
)
def test_events_are_one_line(event: Event, line: str) -> None:
    assert showing.event_line(event).plain == line


def test_warnings_stand_below_their_event() -> None:
    event = Event("finished", "export", "export", 1.0, "nbits for x86", ("slow", "large"))
    first, *others = showing.event_line(event).plain.splitlines()
    assert first.endswith("done 1.0 s  nbits for x86")
    assert others == ["  ! slow", "  ! large"]


def test_check_says_how_models_will_be_exported_and_plan_does_in_short(folder: Path) -> None:
    steps = PLAIN.replace(
        "max_steps: 3}",
        "max_steps: 3}, {stage: quantize, scheme: w8a8}, "
        "{stage: export, lowering: nbits, target: x86}",
    )
    (folder / "my.yaml").write_text(steps)
    done = quantship_command("check", "my.yaml", cwd=folder)
    assert (done.returncode, done.stderr) == (0, "")
    assert "This machine: " in done.stdout
    assert "quantize-onnx: w8a8 as nbits for x86: the recipe asks for it" in done.stdout
    assert "  ! slower than float32 at prompts" in done.stdout
    planned = quantship_command("run", "my.yaml", "--plan", cwd=folder)
    assert "quantize-onnx: w8a8 as nbits for x86  " in planned.stdout


def test_code_is_announced_and_does_not_run_without_leave(folder: Path) -> None:
    (folder / "problems.jsonl").write_text("{}\n")
    task = "{task: mbpp, source: {adapter: mbpp, path: problems.jsonl}}"
    (folder / "my.yaml").write_text(f"{PLAIN}evaluation: {{tasks: [{task}]}}\n")
    for arguments in (["check", "my.yaml"], ["run", "my.yaml", "--plan"]):
        done = quantship_command(*arguments, cwd=folder)
        assert done.returncode == 0
        assert "task 'mbpp' runs" in done.stdout
        assert "--allow-code" in done.stdout
    done = quantship_command("run", "my.yaml", cwd=folder)
    assert done.returncode == 2
    assert "task 'mbpp' runs" in done.stderr
    assert "--allow-code" in done.stderr
    assert not (folder / "artifacts").exists()


def test_a_plan_adds_up_what_is_still_to_be_done() -> None:
    steps = [
        PlannedStep("a", "finetune", True, Path("a"), 5_000_000, 99_000_000),
        PlannedStep("b", "qat", False, Path("b"), 20_000_000, 30_000_000),
        PlannedStep("c", "export", False, Path("c"), None, None),
        PlannedStep("d", "export", False, Path("d"), 10_000_000, 20_000_000),
    ]
    summary = showing.plan_summary(steps)
    assert summary == "3 to run, 1 reused; about 30.0 MB to write, 30.0 MB of memory"
    assert showing.plan_table(steps).row_count == 4


def test_libraries_are_quiet_in_child_processes_too() -> None:
    code = (
        "from quantship.console import quiet_libraries; quiet_libraries();"
        "import subprocess, sys, warnings; warnings.warn('here'); import tqdm;"
        "list(tqdm.tqdm(range(3)));"
        "import torchao.prototype.mx_formats;"
        "subprocess.run([sys.executable, '-c', 'import warnings; warnings.warn(\"there\")'])"
    )
    loud = ("TRANSFORMERS_VERBOSITY", "TQDM_DISABLE", "PYTHONWARNINGS", "TORCH_LOGS")
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={name: value for name, value in os.environ.items() if name not in loud},
        capture_output=True,
        text=True,
        check=True,
    )
    assert (done.stdout, done.stderr) == ("", "")
