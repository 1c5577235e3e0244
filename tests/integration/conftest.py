"""A small recipe with every stage in it, and an undisturbed run of it to hold others against."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import quantship
from quantship.recipe import load

if TYPE_CHECKING:
    from quantship.pipeline import Event, RunResult

RECIPE = """\
model:
  tiny: {hidden_size: 64, intermediate_size: 96, num_layers: 2, num_heads: 2, num_kv_heads: 1,
         max_positions: 128}
data:
  train: [{adapter: builtin, num_examples: 48}]
  eval: [{adapter: builtin, split: eval, num_examples: 8}]
  max_length: 96
steps:
  - {stage: finetune, max_steps: 24, save_steps: 2, logging_steps: 5, learning_rate: 1.0e-3}
  - {stage: quantize, name: ptq, input: finetune, scheme: w8a8}
  - {stage: qat, input: finetune, scheme: w4a16-g32, max_steps: 6, learning_rate: 1.0e-3}
  - {stage: export, input: [model, finetune, ptq, qat]}
evaluation: {parity_sequences: 4}
benchmark: null
profiles:
  short: {steps.finetune.max_steps: 3}
"""
TIMES = (
    *("seconds", "tokens_per_s", "seconds_per_step", "resumed_from"),
    *("blocks_resumed", "peak_rss_bytes"),
)
"""What a training or a quantization tells of that is not the same every time."""


@dataclass
class Runner:
    """Runs the small recipe in a directory of its own.

    Args:
        recipe: The recipe file.
        root: Where artifacts land.
        events: What happened in the last run, as ``(kind, step)``.
    """

    recipe: Path
    root: Path
    events: list[tuple[str, str]]

    def __call__(self, *overrides: str, recipe: Path | None = None) -> RunResult:
        """Run in this process."""
        from quantship import pipeline

        self.events.clear()

        def notify(event: Event) -> None:
            self.events.append((event.kind, event.step))

        return pipeline.run(load(recipe or self.recipe, overrides=overrides), self.root, notify)

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Run in another process, as a user does."""
        return subprocess.Popen(
            [
                *(sys.executable, "-m", "quantship", "run", str(self.recipe)),
                *("--artifacts", str(self.root), *arguments),
            ],
            env=os.environ
            | {
                "OMP_NUM_THREADS": "1",
                "MKL_NUM_THREADS": "1",
                "PYTHONPATH": str(Path(quantship.__file__).parents[1]),
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def happened(self, kind: str) -> list[str]:
        """Steps of the last run that this happened to."""
        return [step for event, step in self.events if event == kind]


@pytest.fixture
def runner(tmp_path: Path, one_thread: None) -> Runner:
    """The small recipe and an empty root."""
    recipe = tmp_path / "small.yaml"
    recipe.write_text(RECIPE)
    return Runner(recipe, tmp_path / "artifacts", [])


@dataclass(frozen=True)
class Undisturbed:
    """A run that nothing came in the way of; its directory is not to be written to."""

    recipe: Path
    root: Path
    result: RunResult
    events: tuple[Event, ...]


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    """The small recipe, run once."""
    import torch

    from quantship import pipeline

    folder = tmp_path_factory.mktemp("undisturbed")
    recipe = folder / "small.yaml"
    recipe.write_text(RECIPE)
    events: list[Event] = []
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        result = pipeline.run(load(recipe), folder / "artifacts", events.append)
    finally:
        torch.set_num_threads(threads)
    return Undisturbed(recipe, folder / "artifacts", result, tuple(events))


@pytest.fixture(scope="session")
def outcome() -> Callable[[RunResult], dict[str, Any]]:
    """All that a run made, to the bit, leaving out what depends on the clock."""

    def outcome(result: RunResult) -> dict[str, Any]:
        return {
            f"{name}: {part}": value
            for name, made in result.artifacts.items()
            for part, value in (*_files(made.path), *_flat(made.facts))
            if part not in TIMES
        }

    return outcome


def _flat(facts: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for key, value in facts.items():
        if isinstance(value, dict):
            yield from _flat(value)
        elif key != "source_sha256":  # of a file whose header has no fixed order
            yield key, value


def _files(path: Path) -> Iterator[tuple[str, Any]]:
    from safetensors import safe_open

    from quantship.artifact import digest_file
    from quantship.quant import checkpoint

    for file in (*path.glob("*.onnx_data"), *path.glob("*/*.arrow"), *path.glob("token*")):
        yield file.name, digest_file(file)
    for file in path.glob("*.safetensors"):
        with safe_open(file, framework="np") as opened:
            for name in opened.keys():  # noqa: SIM118
                yield name, sha256(opened.get_tensor(name).tobytes()).hexdigest()
        for part in checkpoint.load_codes(path).values():
            yield f"codes of {part.name}", (part.bits, part.quantizes_input)


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run to push, which nothing writes to."""
    import pushing
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return pushing.make(tmp_path_factory.mktemp("finished"))
    finally:
        torch.set_num_threads(threads)
