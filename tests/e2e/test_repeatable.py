"""The quickstart, run twice: the second time from the first one's lock, in a folder of its own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import pytest

import quantship

pytestmark = pytest.mark.slow


@dataclass(frozen=True)
class Twice:
    """Two folders with the models of a run, and what the second run printed."""

    one: Path
    two: Path
    printed: str


def type_in(folder: Path, *arguments: str) -> str:
    """Run quantship with these arguments, on one thread; what it prints."""
    done = subprocess.run(
        [sys.executable, "-m", "quantship", *arguments],
        cwd=folder,
        env=os.environ
        | {
            "OMP_NUM_THREADS": "1",
            "MKL_NUM_THREADS": "1",
            "PYTHONPATH": str(Path(quantship.__file__).parents[1]),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@pytest.fixture(scope="module")
def twice(tmp_path_factory: pytest.TempPathFactory) -> Twice:
    folder = tmp_path_factory.mktemp("user")
    short = ("--profile", "smoke", "--set", "benchmark=null")
    type_in(folder, "run", "quickstart", *short, "--artifacts", "one")
    lock = str(Path("one", "runs", "quickstart", "lock.json"))
    printed = type_in(folder, "run", "--locked", lock, "--artifacts", "two")
    models = Path("runs", "quickstart", "models")
    return Twice(folder / "one" / models, folder / "two" / models, printed)


def checkpoints(models: Path) -> Iterator[tuple[str, str]]:
    """Every tensor of every checkpoint, and the digest of its bytes."""
    import torch
    from safetensors import safe_open

    for path in sorted(models.glob("*/*.safetensors")):
        with safe_open(path, framework="pt") as opened:
            for name in opened.keys():  # noqa: SIM118
                tensor = opened.get_tensor(name)
                raw = tensor.contiguous().view(-1).view(torch.uint8).numpy().tobytes()
                kind = f"{tensor.dtype} {tuple(tensor.shape)}"
                yield f"{path.parent.name} {name}", f"{kind} {sha256(raw).hexdigest()}"


def initializers(models: Path) -> Iterator[tuple[str, str]]:
    """Every initializer of every ONNX model, and the digest of its bytes."""
    import onnx
    from onnx import numpy_helper

    for path in sorted(models.glob("*/*.onnx")):
        for tensor in onnx.load(path).graph.initializer:
            array = numpy_helper.to_array(tensor)
            kind = f"{tensor.data_type} {array.shape}"
            yield (
                f"{path.parent.name} {tensor.name}",
                f"{kind} {sha256(array.tobytes()).hexdigest()}",
            )


def test_codes_and_scales_of_checkpoints_are_equal_to_the_bit(twice: Twice) -> None:
    one, two = dict(checkpoints(twice.one)), dict(checkpoints(twice.two))
    assert one == two
    assert len({name.split()[0] for name in one}) >= 4
    assert any("int8" in kind for kind in one.values())


def test_initializers_of_onnx_models_are_equal_to_the_bit(twice: Twice) -> None:
    one, two = dict(initializers(twice.one)), dict(initializers(twice.two))
    assert one == two
    assert len({name.split()[0] for name in one}) >= 3


def test_the_run_from_the_lock_says_so(twice: Twice) -> None:
    assert "Data, models, packages and machine are the lock's." in twice.printed
    assert "reused" not in twice.printed
    assert re.search(r"^✓ Models: all \d+ are the lock's", twice.printed, re.MULTILINE)
    assert re.search(r"^✓ Data and results: all \d+ are the lock's", twice.printed, re.MULTILINE)
