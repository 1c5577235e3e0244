"""What users type after ``docker run``, and what they get."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from images import Image

import quantship

pytestmark = pytest.mark.slow
QuantshipIn = Callable[..., subprocess.CompletedProcess[str]]
SMOKE = ("quickstart", "--profile", "smoke")


def owners(folder: Path) -> set[tuple[int, int]]:
    return {(path.lstat().st_uid, path.lstat().st_gid) for path in folder.rglob("*")}


def on_the_host(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "quantship", *arguments],
        cwd=folder,
        env=os.environ
        | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(quantship.__file__).parents[1])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def jobs(said: str, state: str) -> list[str]:
    return re.findall(rf"^✓ (.+?) +{state}", said, re.MULTILINE)


def test_help_is_what_no_argument_and_help_give(image: Image) -> None:
    for arguments in ((), ("--help",)):
        done = image.run(*arguments)
        assert done.returncode == 0, done.stderr
        assert "Usage: quantship" in done.stdout


def test_the_quickstart_ends_with_a_report_that_the_user_owns(
    quantship_in: QuantshipIn, tmp_path: Path
) -> None:
    done = quantship_in(tmp_path, *SMOKE)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1] == "Report: artifacts/runs/quickstart/report.html"
    assert (tmp_path / "artifacts" / "runs" / "quickstart" / "report.html").is_file()
    assert owners(tmp_path) == {(os.getuid(), os.getgid())}
    assert [path.name for path in tmp_path.iterdir()] == ["artifacts"]
    assert jobs(quantship_in(tmp_path, *SMOKE).stdout, "reused") == jobs(done.stdout, "done")


def test_container_and_host_reuse_what_the_other_has_made(
    quantship_in: QuantshipIn, workspace: Path
) -> None:
    made = quantship_in(workspace, "recipe.yaml")
    assert (made.returncode, made.stderr) == (0, "")
    assert "finetune" in jobs(made.stdout, "done")
    assert jobs(on_the_host(workspace, "recipe.yaml"), "reused") == jobs(made.stdout, "done")
    by_host = on_the_host(workspace, "recipe.yaml", "--set", "seed=1")
    assert "finetune" in jobs(by_host, "done")
    again = quantship_in(workspace, "run", "recipe.yaml", "--set", "seed=1")
    assert (again.returncode, again.stderr) == (0, "")
    assert (jobs(again.stdout, "done"), jobs(again.stdout, "reused")) == (
        [],
        jobs(by_host, "done") + jobs(by_host, "reused"),
    )


@pytest.mark.skipif(os.getuid() != 0, reason="only root gives a folder to another user")
def test_any_user_may_run_it_on_a_folder_of_theirs(
    quantship_in: QuantshipIn, workspace: Path
) -> None:
    stranger = 54321
    os.chown(workspace, stranger, stranger)
    done = quantship_in(workspace, "recipe.yaml", user=f"{stranger}:{stranger}")
    assert (done.returncode, done.stderr) == (0, "")
    assert owners(workspace / "artifacts") == {(stranger, stranger)}


def test_a_bad_recipe_is_told_by_file_line_and_key_and_leaves_nothing(
    quantship_in: QuantshipIn, workspace: Path
) -> None:
    recipe = workspace / "recipe.yaml"
    recipe.write_text(recipe.read_text().replace("scheme: w8a8", "scheme: w9a9"))
    done = quantship_in(workspace, "recipe.yaml")
    assert done.returncode == 2
    assert re.match(r"recipe\.yaml:8: steps\.(1|ptq)\.scheme: ", done.stderr)
    assert done.stdout == ""
    assert [path.name for path in workspace.iterdir()] == ["recipe.yaml"]


@pytest.mark.skipif(os.getuid() != 0, reason="only root has a folder that user 1000 may not write")
def test_a_workspace_of_somebody_else_is_named_with_the_remedy(
    quantship_in: QuantshipIn, workspace: Path
) -> None:
    workspace.chmod(0o755)
    done = quantship_in(workspace, "recipe.yaml", user="1000:1000")
    assert done.returncode == 2
    assert "/workspace belongs to user 0, and this runs as user 1000" in done.stderr
    assert '--user "$(id -u):$(id -g)"' in done.stderr
    assert "Traceback" not in done.stderr


def test_a_token_is_read_from_a_secret_file(image: Image, tmp_path: Path) -> None:
    secret = tmp_path / "token"
    secret.write_text("hf_of_a_test\n")
    mount = ("-v", f"{secret}:/run/secrets/hf_token:ro")
    code = "import huggingface_hub; print(huggingface_hub.get_token())"
    options = ("--user", f"{os.getuid()}:{os.getgid()}", "--read-only", "--network", "none")
    assert image.python(code, *options, *mount) == "hf_of_a_test\n"
    assert image.python(code, *options) == "None\n"
