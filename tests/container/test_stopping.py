"""``docker stop``: SIGTERM to process 1, and SIGKILL ten seconds later."""

from __future__ import annotations

import json
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import engines
import pytest
from images import LOCKED, ME, ONE_THREAD, Image

pytestmark = pytest.mark.slow
SECONDS = 10
"""What engines grant before they kill."""


@pytest.fixture
def started(image: Image, workspace: Path) -> Iterator[str]:
    """Identity of a container that trains."""
    recipe = workspace / "recipe.yaml"
    longer = recipe.read_text().replace("max_steps: 4", "max_steps: 400, save_steps: 25")
    recipe.write_text(longer)
    options = ("--user", ME, *LOCKED, "-v", f"{workspace}:/workspace", *ONE_THREAD)
    name = engines.ask(image.engine, "run", "-d", *options, image.name, "recipe.yaml")
    try:
        yield name
    finally:
        subprocess.run([image.engine, "rm", "-f", name], capture_output=True, check=False)


def test_a_stopped_training_goes_on_where_it_stopped(
    image: Image,
    started: str,
    workspace: Path,
    quantship_in: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    steps = workspace / "artifacts" / "steps"
    limit = time.monotonic() + 120
    while not _checkpoints(steps):
        assert time.monotonic() < limit
        time.sleep(0.1)
    began = time.monotonic()
    engines.ask(image.engine, "stop", started)
    took_s = time.monotonic() - began
    assert engines.ask(image.engine, "inspect", "--format", "{{.State.ExitCode}}", started) == "130"
    assert took_s < SECONDS
    said = _words(image, started)
    assert "The same command resumes where it stopped." in said
    assert "Traceback" not in said
    stopped_at = max(_checkpoints(steps))
    done = quantship_in(workspace, "recipe.yaml")
    assert (done.returncode, done.stderr) == (0, "")
    (manifest,) = steps.glob("finetune-*/artifact.json")
    assert json.loads(manifest.read_text())["facts"]["training"]["resumed_from"] == stopped_at


def _checkpoints(steps: Path) -> list[int]:
    """After how many steps training was saved."""
    found = steps.glob("finetune-*.resume/checkpoint-*")
    return [int(path.name.removeprefix("checkpoint-")) for path in found]


def _words(image: Image, container: str) -> str:
    done = subprocess.run(
        [image.engine, "logs", container], capture_output=True, text=True, check=True
    )
    return re.sub(r" +", " ", done.stdout + done.stderr)
