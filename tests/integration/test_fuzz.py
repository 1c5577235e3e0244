"""Hostile files of every kind, for some seconds; ``nox -s fuzz`` does the same for long."""

from __future__ import annotations

import shutil
from pathlib import Path
from random import Random

import mutate
import pytest
import seeds
import targets
import watching
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

EXAMPLES = 12
"""For each target."""

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_thread")]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sound files, and what lies outside."""
    folder = tmp_path_factory.mktemp("seeds")
    seeds.make(folder)
    return folder


@pytest.fixture(scope="module")
def work(made: Path) -> Path:
    """Where examples are made, beside the folder that none may read."""
    folder = made / "work"
    folder.mkdir()
    shutil.copytree(made / mutate.OUTSIDE, folder / mutate.OUTSIDE)
    return folder


@pytest.fixture(scope="module")
def watch(work: Path) -> watching.Watch:
    """One for all: its hook stays."""
    return watching.Watch(work / mutate.OUTSIDE)


@pytest.fixture(autouse=True)
def _bound_to_their_folders(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("QUANTSHIP_ROOTS")


@pytest.mark.parametrize("name", targets.TARGETS)
def test_sound_files_are_read(made: Path, name: str) -> None:
    target = targets.TARGETS[name]
    for seed in target.seeds:
        target.read(made / seed, made / seed, Random(2))


@pytest.mark.parametrize("name", targets.TARGETS)
def test_hostile_files_are_read_or_refused(
    made: Path, work: Path, watch: watching.Watch, name: str
) -> None:
    target = targets.TARGETS[name]

    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
    )
    @given(dice=st.randoms(use_true_random=False, note_method_calls=False))
    def some(dice: Random) -> None:
        shutil.rmtree(work / "example", ignore_errors=True)
        read, done = targets.prepared(target, made, work / "example", dice)
        verdict = watching.judge(read, watch, target.allowed)
        assert verdict.outcome != "failed", f"{done}\n{verdict.reason}\n{verdict.trace}"

    some()


def test_the_watch_sees_what_is_read_outside(work: Path, watch: watching.Watch) -> None:
    secret = work / mutate.OUTSIDE / "secret.bin"
    verdict = watching.judge(secret.read_bytes, watch, ())
    assert (verdict.outcome, verdict.reason) == ("failed", "read outside: secret.bin")
    assert watching.judge(Path("/etc/passwd").read_bytes, watch, ()).outcome == "failed"


def test_the_watch_sees_crashes_time_and_memory(
    watch: watching.Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    def endless() -> None:
        while True:
            pass

    assert watching.judge(lambda: {}["x"], watch, ()).reason.startswith("KeyError at")
    assert watching.judge(lambda: bytearray(2**33), watch, ()).reason.startswith("MemoryError")
    monkeypatch.setattr(watching, "MOST_SECONDS", 0.2)
    assert watching.judge(endless, watch, ()).reason.startswith("Overtime at")


def test_external_weights_outside_are_not_run(made: Path, tmp_path: Path) -> None:
    """Native code leaves no trace of what it reads: had it read this, it would have loaded it."""
    import onnx

    from quantship.errors import QuantshipError
    from quantship.inspection.inspect import inspect
    from quantship.runtimes.base import open_runtime
    from quantship.validation.run import validate

    folder = tmp_path / "model"
    shutil.copytree(made / "onnx-float", folder)
    (weights,) = folder.glob("*.onnx_data*")
    weights.rename(tmp_path / weights.name)
    graph = onnx.load(folder / "model.onnx", load_external_data=False)
    for tensor in graph.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = f"../{weights.name}"
    onnx.save(graph, folder / "model.onnx")
    for read in (inspect, lambda path: open_runtime(path)):
        with pytest.raises(Exception, match=r"outside|external|escape|not .*under"):
            read(folder)
    found = validate(folder, made / "onnx-float")
    assert not found.equal
    assert "outside of the model's directory" in found.checks[0].detail
    assert not any(file.name == weights.name for side in (found.a,) for file in side.files)
    with pytest.raises(QuantshipError, match="outside of the model's directory"):
        inspect(folder)
