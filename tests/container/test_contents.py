"""What the image holds: the pinned versions, what runs, and nothing else."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import engines
import pytest
from images import Image
from packaging.utils import canonicalize_name

import quantship

pytestmark = pytest.mark.slow
MB = 1_000_000
COMPILERS = ("gcc", "cc", "g++", "clang", "ld", "make")
OF_DEVELOPERS = ("pip", "pytest", "hypothesis", "mypy", "nox")
EMPTY = ("/root/.cache", "/tmp", "/workspace", "/cache/huggingface")


@pytest.fixture(scope="module")
def config(image: Image) -> dict[str, Any]:
    return json.loads(image.ask("image", "inspect", "--format", "{{json .Config}}"))


def test_versions_are_those_of_the_constraints(image: Image, repository: Path) -> None:
    code = (
        "import json; from importlib.metadata import distributions\n"
        "print(json.dumps({one.metadata['Name']: one.version for one in distributions()}))"
    )
    inside = {
        canonicalize_name(name): version.partition("+")[0]
        for name, version in json.loads(image.python(code)).items()
    }
    assert inside.pop("quantship") == quantship.__version__
    text = (repository / "docker" / "constraints.txt").read_text()
    lines = re.findall(r"^([\w.-]+)==(\S+)$", text, re.MULTILINE)
    pins = {canonicalize_name(name): version for name, version in lines}
    assert {"torch", "onnxruntime", "transformers", "scikit-learn", "lm-eval"} <= inside.keys()
    assert {name: one for name, one in inside.items() if pins.get(name) != one} == {}


def test_nothing_of_developers_is_inside(image: Image) -> None:
    code = (
        "import importlib.util, pathlib, shutil\n"
        f"print([name for name in {COMPILERS} if shutil.which(name)])\n"
        f"print([name for name in {OF_DEVELOPERS} if importlib.util.find_spec(name)])\n"
        "tests = pathlib.Path('/opt/venv').rglob('tests')\n"
        "print([str(path) for path in tests if list(path.glob('test_*'))])\n"
        f"places = map(pathlib.Path, {EMPTY})\n"
        "print([path for path in places if path.is_dir() and any(path.iterdir())])\n"
    )
    found = image.python(code, "--user", "0:0", "--workdir", "/").splitlines()
    assert found == ["[]"] * 4


def test_it_is_within_its_limit(image: Image) -> None:
    size = str(engines.size_bytes(image.engine, image.name))
    done = image.run(engines.SIZES, "cpu", size, options=("--entrypoint", "python"))
    assert done.returncode == 0, done.stdout
    assert re.search(r"limit 2000 MB, measured 1\d{3} MB: kept", done.stdout)
    tight = image.run(engines.SIZES, "cpu", "2000000001", options=("--entrypoint", "python"))
    assert tight.returncode == 1
    assert "EXCEEDED" in tight.stdout


def test_the_code_lies_in_a_layer_of_its_own(image: Image) -> None:
    sizes = image.ask("image", "history", "--human=false", "--format", "{{.Size}}").split()
    from_above = [int(size) for size in sizes if int(size) > 0]
    code, packages = from_above[:2]
    assert code < 20 * MB
    assert packages > 1000 * MB


def test_it_says_what_it_is_and_runs_as_nobody_special(config: dict[str, Any]) -> None:
    labels = config["Labels"]
    assert labels["org.opencontainers.image.title"] == "quantship"
    assert labels["org.opencontainers.image.licenses"] == "Apache-2.0"
    assert labels["org.opencontainers.image.version"] in ("", quantship.__version__)  # or by hand
    assert config["User"] == "1000:1000"
    assert config["WorkingDir"] == "/workspace"


def test_no_secret_is_in_its_history_or_its_settings(image: Image, config: dict[str, Any]) -> None:
    said = image.ask("image", "history", "--no-trunc") + json.dumps(config)
    assert "pip" in said
    assert re.findall(r"hf_[A-Za-z0-9]{20,}|(?i:token|password|secret)=[^/\s\"]\S*", said) == []
