"""What the files in docker/ are held against: the image, the launcher's options, the commands."""

from __future__ import annotations

import json
import re
import shlex
from argparse import Namespace
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

CLI = Callable[[list[str]], dict[str, object]]
LAUNCHER = Callable[[list[str]], tuple[Namespace, list[str]]]


@dataclass(frozen=True)
class Image:
    """What docker/Dockerfile promises to those who run what it builds."""

    environment: dict[str, str]
    workdir: str
    entrypoint: list[str]
    user: str
    targets: list[str]


@pytest.fixture(scope="session")
def folder(repository: Path) -> Path:
    return repository / "docker"


@pytest.fixture(scope="session", params=["cuda", "cpu"])
def image(request: pytest.FixtureRequest, folder: Path) -> Image:
    text = re.sub(r"\\\n", " ", (folder / "Dockerfile").read_text())
    stages: dict[str, tuple[str, dict[str, list[str]]]] = {}
    for word, rest in re.findall(r"^(FROM|ENV|WORKDIR|ENTRYPOINT|USER) +(.*)$", text, re.MULTILINE):
        if word == "FROM":
            base, _, name = rest.split()
            inherited = stages[base][1] if base in stages else {}
            said = {word: list(lines) for word, lines in inherited.items()}
            stages[name] = (base, said)
        else:
            said.setdefault(word, []).append(rest)
    _, mine = stages[request.param]
    return Image(
        environment=dict(word.split("=", 1) for line in mine["ENV"] for word in shlex.split(line)),
        workdir=mine["WORKDIR"][-1],
        entrypoint=json.loads(mine["ENTRYPOINT"][-1]),
        user=mine["USER"][-1],
        targets=list(stages),
    )


@pytest.fixture(scope="session")
def understood() -> CLI:
    """The command line's own parser: parameters of the command, or its UsageError."""
    import typer

    from quantship.cli import COMMANDS, app

    group = typer.main.get_command(app)

    def parse(words: list[str]) -> dict[str, object]:
        if words[0] not in COMMANDS and not words[0].startswith("-"):
            words = ["run", *words]
        with group.make_context("quantship", list(words)) as outer:
            command = group.get_command(outer, words[0])  # type: ignore[attr-defined]
            assert command is not None, words
            with command.make_context(words[0], list(words[1:]), parent=outer) as inner:
                return {"command": words[0], **inner.params}

    return parse


@pytest.fixture(scope="session")
def launched() -> LAUNCHER:
    """torchrun's own parser: its options, and the words that are left for quantship."""
    from torch.distributed.run import parse_args

    def parse(words: list[str]) -> tuple[Namespace, list[str]]:
        start = ["python", "-m", "quantship.launch"]
        assert words[:3] == start
        options = parse_args(words[3:])
        return options, [options.training_script, *options.training_script_args]

    return parse
