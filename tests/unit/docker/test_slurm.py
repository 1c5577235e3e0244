"""docker/slurm/quantship.sbatch: shell that a linter passes, run here with stand-ins for SLURM.

``srun`` and ``scontrol`` are played by scripts of a few lines, since no scheduler runs in a test.
"""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from quantship import stopping
from quantship.errors import RecipeError

PLAY = Callable[..., "Played"]


@dataclass(frozen=True)
class Played:
    """How a job ended: its exit code, what srun was told to run, what scontrol was asked for."""

    code: int
    srun: list[str]
    scontrol: list[str]
    output: str


@pytest.fixture(scope="module")
def script(folder: Path) -> Path:
    (found,) = (folder / "slurm").iterdir()
    return found


def directives(script: Path) -> dict[str, str]:
    lines = re.findall(r"^#SBATCH --([\w-]+)(?:=(\S+))?$", script.read_text(), re.MULTILINE)
    return dict(lines)


@pytest.fixture
def play(script: Path, tmp_path: Path) -> PLAY:
    """Run the script as a job of SLURM would, with what srun does as shell code."""
    programs = tmp_path / "programs"
    programs.mkdir()
    asked = tmp_path / "asked"
    asked.touch()

    def write(name: str, code: str) -> None:
        (programs / name).write_text(f"#!/usr/bin/env bash\n{code}\n")
        (programs / name).chmod(0o755)

    write("scontrol", f'[ "$1" = show ] && tr , "\\n" <<<"$3" || echo "$@" >>{asked}')
    write("python", f'exec {shlex.quote(sys.executable)} "$@"')

    def run(*arguments: str, srun: str, **environment: str) -> Played:
        words = tmp_path / "words"
        write("srun", f'printf "%s\\n" "$@" >{words}\n{srun}')
        slurm = {
            "SLURM_JOB_ID": "4711",
            "SLURM_JOB_NODELIST": "node1,node2",
            "SLURM_JOB_NUM_NODES": "2",
            "SLURM_GPUS_ON_NODE": "4",
            "SLURM_CPUS_PER_TASK": "32",
            "HOME": str(tmp_path),
            "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
        }
        kept = {name: os.environ[name] for name in ("LANG", "LC_ALL") if name in os.environ}
        done = subprocess.run(
            ["bash", str(script), *arguments],
            env=kept | slurm | environment,
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        said = words.read_text().splitlines()
        return Played(done.returncode, said, asked.read_text().splitlines(), done.stdout)

    return run


def launch_of(words: list[str]) -> list[str]:
    return words[words.index("python") :]


def test_bash_and_shellcheck_pass_it(script: Path) -> None:
    assert script.name == "quantship.sbatch"
    subprocess.run(["bash", "-n", str(script)], check=True)
    checker = Path(sys.executable).with_name("shellcheck")
    said = subprocess.run([str(checker), str(script)], capture_output=True, text=True, check=False)
    assert said.returncode == 0, said.stdout


def test_shellcheck_refuses_what_is_wrong(tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.sh"
    wrong.write_text("#!/usr/bin/env bash\nrm $1\n")
    checker = Path(sys.executable).with_name("shellcheck")
    assert subprocess.run([str(checker), str(wrong)], capture_output=True, check=False).returncode


def test_the_signal_comes_in_time_and_the_job_may_go_back(script: Path, play: PLAY) -> None:
    asked = directives(script)
    assert "requeue" in asked
    name, before_s = re.fullmatch(r"(\w+)@(\d+)", asked["signal"]).groups()  # type: ignore[union-attr]
    assert name == "TERM"  # to the processes: "B:" would mean the script alone
    words = play("recipe.yaml", srun="exit 0").srun
    (timeout,) = [word for word in words if word.startswith("--shutdown-timeout=")]
    assert 30 < int(timeout.partition("=")[2]) < int(before_s)


def test_the_launcher_gets_what_slurm_has_given(play: PLAY, launched: Any, understood: Any) -> None:
    played = play("recipe.yaml", "--fsdp", srun="exit 0")
    options, words = launched(launch_of(played.srun))
    assert (int(options.nnodes), int(options.nproc_per_node)) == (2, 4)
    assert options.rdzv_backend == "c10d"
    assert options.rdzv_endpoint == "node1:24711"
    assert options.rdzv_id == "4711-0"
    assert words == ["run", "recipe.yaml", "--fsdp"]
    assert understood(words)["recipe"] == "recipe.yaml"
    assert (played.code, played.scontrol) == (0, [])


def test_cores_are_shared_by_the_processes_of_a_node(play: PLAY) -> None:
    assert play("x.yaml", srun="echo threads=$OMP_NUM_THREADS").output.strip() == "threads=8"
    own = play("x.yaml", srun="echo threads=$OMP_NUM_THREADS", OMP_NUM_THREADS="3")
    assert own.output.strip() == "threads=3"
    few = play("x.yaml", srun="echo threads=$OMP_NUM_THREADS", SLURM_CPUS_PER_TASK="1")
    assert few.output.strip() == "threads=1"


@pytest.mark.parametrize("code", [0, 1, 2, 3, 4, 137])
def test_a_job_that_ended_by_itself_keeps_its_exit_code(play: PLAY, code: int) -> None:
    played = play("recipe.yaml", srun=f"exit {code}")
    assert (played.code, played.scontrol) == (code, [])


@pytest.mark.parametrize("code", [stopping.EXIT_CODE, 128 + signal.SIGTERM])
def test_an_interrupted_job_goes_back_into_the_queue(play: PLAY, code: int) -> None:
    played = play("recipe.yaml", srun=f"exit {code}")
    assert played.scontrol == ["requeue 4711"]


def test_images_see_the_folder_and_the_cache_where_they_look(
    play: PLAY, image: Any, launched: Any
) -> None:
    cache = {"HF_HOME": "/shared/cache"}
    apptainer = play("r.yaml", srun="exit 0", QUANTSHIP_IMAGE="/shared/q.sif", **cache).srun
    start, end = apptainer.index("apptainer"), apptainer.index("/shared/q.sif")
    inside = apptainer[start:end]
    pairs = list(pairwise(inside))
    binds = [b.split(":")[1] for a, b in pairs if a == "--bind"]
    assert binds == [image.workdir, image.environment["HF_HOME"]]
    assert ("--env", f"HF_HOME={image.environment['HF_HOME']}") in pairs
    assert ("--pwd", image.workdir) in pairs
    pyxis = play("r.yaml", srun="exit 0", QUANTSHIP_IMAGE="/shared/q.sqsh", **cache).srun
    (mounts,) = [word for word in pyxis if word.startswith("--container-mounts=")]
    targets = [mount.split(":")[-1] for mount in mounts.partition("=")[2].split(",")]
    assert targets == [image.workdir, image.environment["HF_HOME"]]
    assert "--container-workdir=/workspace" in pyxis
    assert launched(launch_of(pyxis))[1] == launched(launch_of(apptainer))[1] == ["run", "r.yaml"]


def test_a_wrong_recipe_ends_the_job_with_its_own_code(play: PLAY, tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text("nonsense: 1\n")
    srun = 'while [ "$1" != python ]; do shift; done; exec "$@"'
    settings = {
        "SLURM_JOB_NODELIST": "localhost",
        "SLURM_JOB_NUM_NODES": "1",
        "SLURM_GPUS_ON_NODE": "1",
    }
    played = play("recipe.yaml", srun=srun, **settings)
    assert played.code == RecipeError.exit_code, played.output
    assert "nonsense: unknown key" in played.output
    assert played.scontrol == []
