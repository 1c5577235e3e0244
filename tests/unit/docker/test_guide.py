"""What docker/README.md tells people to type can be typed, and its table is its formulas."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from quantship import errors, stopping
from quantship.estimate import RUNTIME_BYTES, needs
from quantship.job import Node

Words = list[str]
TAKE_A_VALUE = {
    *("--cap-drop", "--entrypoint", "--gpus", "--network", "--security-opt", "--shm-size"),
    *("--stop-timeout", "--tmpfs", "--user", "-e", "-v"),
}
"""Options of ``docker run`` that the guide uses, and that take a value."""
ALONE = {"--rm", "--read-only"}


@dataclass(frozen=True)
class Model:
    """Dimensions from the config.json of a model of Llama's kind."""

    vocabulary: int
    hidden: int
    layers: int
    intermediate: int
    heads: int
    kv_heads: int
    head_width: int
    tied: bool

    @property
    def layer(self) -> int:
        attention = 2 * self.hidden * self.head_width * (self.heads + self.kv_heads)
        return attention + 3 * self.hidden * self.intermediate + 2 * self.hidden

    @property
    def rest(self) -> int:
        return self.vocabulary * self.hidden + self.hidden

    @property
    def parameters(self) -> int:
        untied = 0 if self.tied else self.vocabulary * self.hidden
        return self.rest + untied + self.layers * self.layer


MODELS = {
    "SmolLM2-135M": Model(49_152, 576, 30, 1_536, 9, 3, 64, True),
    "Llama-3.2-1B": Model(128_256, 2_048, 16, 8_192, 32, 8, 64, True),
    "Llama-3.1-8B": Model(128_256, 4_096, 32, 14_336, 32, 8, 128, False),
}


@pytest.fixture(scope="module")
def guide(folder: Path) -> str:
    return (folder / "README.md").read_text()


@pytest.fixture(scope="module")
def blocks(guide: str) -> list[str]:
    return re.findall(r"^```bash\n(.*?)^```$", guide, re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def commands(blocks: list[str]) -> list[Words]:
    """Every simple command of the guide, in words; settings before it are left out."""
    found = []
    for block in blocks:
        for line in re.sub(r"\\\n", " ", block).splitlines():
            words = shlex.split(line, comments=True)
            for command in _split(words, "|"):
                while command and re.fullmatch(r"\w+=.*", command[0]):
                    command = command[1:]
                if command:
                    found.append(command)
    return found


def _split(words: Words, at: str) -> Iterator[Words]:
    while at in words:
        index = words.index(at)
        yield words[:index]
        words = words[index + 1 :]
    yield words


def inside(words: Words) -> tuple[Words, dict[str, list[str]], str]:
    """Of ``docker run``: what runs in the container, the options, and the image."""
    options: dict[str, list[str]] = {}
    rest = words[2:]
    while rest[0].startswith("-"):
        assert rest[0] in TAKE_A_VALUE | ALONE, rest[0]
        count = 2 if rest[0] in TAKE_A_VALUE else 1
        options.setdefault(rest[0], []).extend(rest[1:count])
        rest = rest[count:]
    return options.get("--entrypoint", []) + rest[1:], options, rest[0]


def test_its_shell_is_shell(blocks: list[str], tmp_path: Path) -> None:
    assert len(blocks) >= 10
    checker = Path(sys.executable).with_name("shellcheck")
    for index, block in enumerate(blocks):
        path = tmp_path / f"{index}.sh"
        path.write_text(f"#!/usr/bin/env bash\n{block}")
        said = subprocess.run(
            [str(checker), str(path)], capture_output=True, text=True, check=False
        )
        assert said.returncode == 0, said.stdout


class Checker:
    """Holds each command of the guide against what it names, and notes what it has met."""

    def __init__(self, understood: Any, launched: Any, repository: Path) -> None:
        self._understood = understood
        self._launched = launched
        self._repository = repository
        compose = YAML(typ="safe").load((repository / "docker" / "compose.yaml").read_text())
        self._services = compose["services"]
        self.met: set[str] = set()

    def check(self, words: Words) -> None:
        """Check one command; any that no method is there for fails."""
        name = words[0] if words[0] != "docker" else f"docker_{words[1]}"
        self.met.add(name)
        if name != "export":
            getattr(self, f"_{name}")(words)

    def _quantship(self, words: Words) -> None:
        self._understood(words[1:])

    def _python(self, words: Words) -> None:
        if words[1] != "-m":
            assert (self._repository / words[1]).is_file()
            return
        self._understood(self._launched(words)[1])

    def _torchrun(self, words: Words) -> None:
        options, rest = self._launched(["python", "-m", "quantship.launch", *words[1:]])
        assert options.module
        self.check(rest)

    def _accelerate(self, words: Words) -> None:
        from accelerate.commands.launch import launch_command_parser

        assert words[1] == "launch"
        asked = launch_command_parser().parse_args(words[2:])
        assert asked.module
        self.check([asked.training_script, *asked.training_script_args])

    def _hf(self, words: Words) -> None:
        assert words[1:] == ["download", "HuggingFaceTB/SmolLM2-135M-Instruct"]

    def _docker_build(self, words: Words) -> None:
        assert (self._repository / words[words.index("-f") + 1]).is_file()

    def _docker_run(self, words: Words) -> None:
        ran, options, name = inside(words)
        assert name in ("quantship", "quantship:cpu")
        assert options["--user"] == ["$(id -u):$(id -g)"]
        self.check(ran if "--entrypoint" in options else ["quantship", *ran])

    def _docker_compose(self, words: Words) -> None:
        assert words[2:6] == ["-f", "docker/compose.yaml", "run", "--rm"]
        assert words[6] in self._services
        self._understood(words[7:])

    def _kubectl(self, words: Words) -> None:
        files = [file for option, file in pairwise(words) if option == "-f" and file != "-"]
        assert [file for file in files if not (self._repository / file).is_file()] == []

    def _sbatch(self, words: Words) -> None:
        script = words.index("docker/slurm/quantship.sbatch")
        assert all(re.fullmatch(r"--nodes=\d+", word) for word in words[1:script])
        self._understood(["run", *words[script + 1 :]])

    def _pytest(self, words: Words) -> None:
        assert [path for path in words[1:] if not (self._repository / path).exists()] == []

    def _nox(self, words: Words) -> None:
        assert words[1] == "-s"  # which one, test_its_sessions_are_there looks at


def test_every_command_names_what_there_is(
    commands: list[Words], understood: Any, launched: Any, repository: Path
) -> None:
    checker = Checker(understood, launched, repository)
    for words in commands:
        checker.check(words)
    docker = {"docker_build", "docker_run", "docker_compose"}
    launchers = {"torchrun", "accelerate", "python", "quantship", "hf"}
    assert checker.met >= docker | launchers | {"kubectl", "sbatch"}


def test_its_mounts_are_those_of_the_image(commands: list[Words], guide: str, image: Any) -> None:
    places = {image.workdir, image.environment["HF_HOME"], image.environment["HF_TOKEN_PATH"]}
    mounts = {
        volume.split(":")[1]
        for words in commands
        if words[:2] == ["docker", "run"]
        for volume in inside(words)[1].get("-v", [])
    }
    assert mounts == places
    assert all(f"| `{place}` |" in guide for place in places)


def test_its_files_are_there(guide: str, repository: Path) -> None:
    named = set(re.findall(r"`((?:docker|tests)/[\w./-]+)`", guide))
    assert len(named) >= 6
    assert {name for name in named if not (repository / name).exists()} == set()


def test_its_sessions_are_there(guide: str, repository: Path) -> None:
    sessions = set(re.findall(r"nox -s (\w+)", guide))
    noxfile = (repository / "noxfile.py").read_text()
    assert sessions
    assert {name for name in sessions if f"def {name}(session" not in noxfile} == set()


def test_its_exit_codes_are_all_there_are(guide: str) -> None:
    rows = {int(code) for code in re.findall(r"^\| (\d+) \| \w", guide, re.MULTILINE)}
    kinds = [kind for kind in vars(errors).values() if hasattr(kind, "exit_code")]
    assert rows == {0, 1, 137, stopping.EXIT_CODE} | {kind.exit_code for kind in kinds}


def test_its_times_to_stop_are_those_of_the_files(guide: str, folder: Path) -> None:
    files = (
        "compose.yaml",
        "kubernetes/job.yaml",
        "kubernetes/nodes.yaml",
        "slurm/quantship.sbatch",
    )
    compose, job, nodes, script = ((folder / name).read_text() for name in files)
    rows = re.findall(r"^\| ([^|]+) \| (\d+) s \| `([\w-]+)", guide, re.MULTILINE)
    said = {setting: int(seconds) for _, seconds, setting in rows}
    assert f"stop_grace_period: {said['stop_grace_period'] // 60}m\n" in compose
    assert f"#SBATCH --signal=TERM@{said['--signal']}\n" in script
    for text in (job, nodes):
        setting = "terminationGracePeriodSeconds"
        assert f"{setting}: {said[setting]}\n" in text
    for text in (compose, job, nodes, script):
        assert re.findall(r"--shutdown-timeout=(\d+)", text) == [str(said["--shutdown-timeout"])]


def test_its_memory_table_is_its_formulas(guide: str) -> None:
    for name, model in MODELS.items():
        (row,) = re.findall(rf"^\| {re.escape(name)} \| (.*) \|$", guide, re.MULTILINE)
        gathered = 8 * (model.rest + 2 * model.layer)
        weights = model.parameters
        figures = [16 * weights, 20 * weights]
        figures += [16 * weights / number + gathered for number in (8, 16, 32)]
        figures += [12 * weights]
        expected = [f"{count:,}" for count in (weights, model.layer, model.rest)]
        expected += [f"{figure / 1e9:.1f}" for figure in figures]
        assert row.split(" | ") == expected


def test_one_process_needs_what_the_plan_says(guide: str) -> None:
    assert "| one process | 16 P:" in guide
    weights = MODELS["Llama-3.2-1B"].parameters
    for stage, bytes_each in (("finetune", 16), ("qat", 20)):
        planned = needs(Node("n", stage, None, {}, None, "", ""), weights).memory_bytes
        assert planned - RUNTIME_BYTES == bytes_each * weights
    assert "| QAT | 4 P more" in guide


def test_its_sentences_have_the_figures_of_the_formulas(guide: str) -> None:
    text = re.sub(r"\s+", " ", guide)
    large, small = MODELS["Llama-3.1-8B"].parameters, MODELS["Llama-3.2-1B"].parameters
    assert f"(4 P: {4 * large / 1e9:.1f} GB, in nf4 {5 / 8 * large / 1e9:.1f} GB)" in text
    assert f"on eight GPUs: {8 * 4 * large / 1e9:.1f} GB)" in text
    assert f"an 8B model writes {12 * large / 1e9:.1f} GB" in text
    assert f"Llama-3.2-1B take {2 * 4 * small / 12.5e9:.1f} s a step" in text
