"""A Hub that means harm: names that lead elsewhere, pickles, code, addresses with passwords."""

from __future__ import annotations

import json
import pickle
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from hub_api import Commit, Hub, Repository
from local_hub import serve
from pushing import REPO, WRITER, environment, run

RECIPE = """\
name: hostile
model: {hub: me/tiny}
scheme: w8a16
data: {eval: [{adapter: builtin, split: eval, num_examples: 2}], max_length: 64}
evaluation: {parity_sequences: 2}
benchmark: null
steps: [{stage: quantize, name: ptq}]
"""
NAMES = (
    *("../evil.json", "../../evil.json", "../../../../evil.json", "a/../../../../evil.json"),
    *("/evil.json", "..\\..\\evil.json", "./../evil.safetensors"),
)

FETCH = """
import sys
from quantship import models
from quantship.errors import UsageError
for number in range(int(sys.argv[1])):
    try:
        models.from_hub(f"me/tiny{number}", "c" * 40, download=True)
        print("fetched")
    except UsageError:
        print("UsageError")
"""


pytestmark = pytest.mark.slow


@pytest.fixture
def hub() -> Iterator[Hub]:
    with serve({WRITER: True}) as running:
        yield running


@pytest.fixture
def model(tiny_model_dir: Path) -> dict[str, bytes]:
    """Files of a sound model."""
    return {file.name: file.read_bytes() for file in tiny_model_dir.iterdir()}


def offer(hub: Hub, files: dict[str, bytes]) -> None:
    hub.repositories[REPO] = Repository("public", {"main": [Commit("all", files, "c" * 40)]})


def go(hub: Hub, root: Path, url: str = "") -> subprocess.CompletedProcess[str]:
    """Run the recipe in a process of its own."""
    root.mkdir(exist_ok=True)
    recipe = root / "recipe.yaml"
    recipe.write_text(RECIPE)
    arguments = ["-m", "quantship", "run", str(recipe), "--artifacts", str(root / "artifacts")]
    return run(arguments, environment(url or hub.url, root / "home"), root)


def test_a_sound_model_is_fetched(hub: Hub, model: dict[str, bytes], tmp_path: Path) -> None:
    offer(hub, model)
    done = go(hub, tmp_path / "root")
    assert done.returncode == 0, done.stderr


def test_names_of_files_lead_nowhere(hub: Hub, model: dict[str, bytes], tmp_path: Path) -> None:
    for number, name in enumerate(NAMES):
        files = model | {name: b'{"evil": true}'}
        repository = Repository("public", {"main": [Commit("all", files, "c" * 40)]})
        hub.repositories[f"me/tiny{number}"] = repository
    root = tmp_path / "root"
    root.mkdir()
    done = run(["-c", FETCH, str(len(NAMES))], environment(hub.url, root / "home"), root)
    assert done.returncode == 0, done.stderr
    said = done.stdout.splitlines()
    assert len(said) == len(NAMES)
    assert set(said) <= {"fetched", "UsageError"}
    for number in range(len(NAMES)):
        cache = root / "home" / "hub" / f"models--me--tiny{number}"
        inside = [cache / "blobs", cache / "snapshots" / ("c" * 40)]
        for file in tmp_path.rglob("*"):
            if f"tiny{number}" in str(file) and file.is_file() and b'"evil"' in file.read_bytes():
                assert any(file.is_relative_to(folder) for folder in inside), file
                assert file.resolve().is_relative_to(cache)
    named = [file for file in tmp_path.rglob("*evil*") if "snapshots" not in file.parts]
    assert named == []
    assert not Path("/evil.json").exists()


def test_pickles_are_not_even_fetched(hub: Hub, model: dict[str, bytes], tmp_path: Path) -> None:
    mark = tmp_path / "opened"
    evil = pickle.dumps(_Evil(mark))
    del model["model.safetensors"]
    offer(hub, model | {"pytorch_model.bin": evil, "model.pt": evil})
    done = go(hub, tmp_path / "root")
    assert done.returncode == 2, done.stderr
    assert "holds no *.safetensors" in done.stderr
    assert "safe_serialization=True" in done.stderr
    assert not mark.exists()
    assert not list(tmp_path.rglob("*.bin"))


def test_code_is_neither_fetched_nor_run(hub: Hub, model: dict[str, bytes], tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    config = json.loads(model["config.json"]) | {"auto_map": {"AutoConfig": "evil.Config"}}
    code = f"from pathlib import Path\nPath({str(mark)!r}).touch()\n".encode()
    offer(hub, model | {"config.json": json.dumps(config).encode(), "evil.py": code})
    done = go(hub, tmp_path / "root")
    assert done.returncode == 3, done.stderr
    assert "code of the model's own (auto_map)" in done.stderr
    assert not mark.exists()
    assert not list(tmp_path.rglob("evil.py"))


def test_an_address_with_a_password_is_shown_without(hub: Hub, tmp_path: Path) -> None:
    url = hub.url.replace("http://", "http://me:open-sesame@")
    done = go(hub, tmp_path / "root", url)
    assert done.returncode == 2, done.stderr
    said = [done.stdout, done.stderr]
    said += [file.read_text(errors="replace") for file in tmp_path.rglob("*") if file.is_file()]
    assert not any("open-sesame" in text for text in said)


class _Evil:
    def __init__(self, mark: Path) -> None:
        self._mark = mark

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self._mark,)
