"""Every file of every kind of artifact, damaged in every way: it is never taken for what it was."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from faults import damage
from hypothesis import given, settings
from hypothesis import strategies as st

from quantship import artifact
from quantship.artifact import MANIFEST


def artifacts(root: Path) -> list[Path]:
    """One finished directory of each stage."""
    directories = sorted(path for path in root.glob("steps/*") if path.is_dir())
    by_stage = {path.name.rpartition("-")[0]: path for path in directories}
    return list(by_stage.values())


@pytest.fixture(scope="module")
def copy(undisturbed: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished root to do damage in, and to put right again."""
    root = tmp_path_factory.mktemp("damaged") / "artifacts"
    shutil.copytree(undisturbed.root, root, symlinks=True)
    return root


def found(path: Path) -> bool:
    """Whether a run would reuse a directory, or could not tell."""
    whole = json.loads((path.parents[2] / "names.json").read_text())
    return artifact.find(path.parents[1], *whole[path.name]) is not None


@pytest.fixture(scope="module", autouse=True)
def names(copy: Path) -> None:
    """What directories are called for, kept where no damage reaches it."""
    kept = {}
    for path in (copy / "steps").iterdir():
        manifest = artifact.read_manifest(path)
        kept[path.name] = (manifest.stage, manifest.fingerprint)
    (copy.parent / "names.json").write_text(json.dumps(kept))


def files(directory: Path) -> Iterator[Path]:
    yield from sorted(file for file in directory.rglob("*") if file.is_file())


@pytest.mark.parametrize("kind", damage.ALL)
def test_no_file_of_any_stage_can_be_damaged_unseen(
    kind: str, copy: Path, undisturbed: Any
) -> None:
    generator = random.Random(kind)
    stages, tried = set(), 0
    for directory in artifacts(copy):
        assert found(directory)
        for file in files(directory):
            damage.ALL[kind](file, generator)
            assert not found(directory), f"{file}: {kind}"
            damage.restore(file, undisturbed.root / file.relative_to(copy))
            tried += 1
        assert found(directory)
        stages.add(directory.name.rpartition("-")[0])
    assert stages == {"tiny", "data", "finetune", "quantize", "qat", "export", "evaluate"}
    assert tried > 40


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_no_byte_of_any_file_can_be_changed_unseen(copy: Path, undisturbed: Any, data: Any) -> None:
    file = data.draw(st.sampled_from([one for path in artifacts(copy) for one in files(path)]))
    whole = file.read_bytes()
    content = bytearray(whole)
    action = data.draw(st.sampled_from(["flip", "insert", "remove", "exchange"]))
    place = data.draw(st.integers(0, len(content) - 1))
    if action == "flip":
        content[place] ^= 1 << data.draw(st.sampled_from(damage.BITS))
    elif action == "insert":
        content.insert(place, data.draw(st.integers(1, 255)))
    elif action == "remove":
        del content[place]
    else:
        other = data.draw(st.integers(0, len(content) - 1))
        content[place], content[other] = content[other], content[place]
    directory = copy / "steps" / file.relative_to(copy / "steps").parts[0]
    file.write_bytes(content)
    try:
        changed = bytes(content) != whole
        if file.name == MANIFEST and found(directory):  # a blank more changes nothing it says
            assert json.loads(content) == json.loads(whole)
        else:
            assert found(directory) != changed
    finally:
        file.write_bytes(whole)


def test_a_run_reads_every_file_of_an_artifact_once(
    copy: Path, undisturbed: Any, runner: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(undisturbed.root, runner.root, symlinks=True)
    read: list[Path] = []
    digest = artifact.digest_file

    def counting(path: Path) -> str:
        read.append(path.resolve())
        return digest(path)

    for module in ("artifact", "provenance.sums", "provenance.contents", "exporters.origin"):
        monkeypatch.setattr(f"quantship.{module}.digest_file", counting)
    runner()
    assert not runner.happened("finished")
    inside = [path for path in read if path.is_relative_to(runner.root / "steps")]
    weights = [path for path in inside if path.name != MANIFEST]
    assert len(weights) == len(set(weights)) > 40
