"""Promises of the repository itself: pinned versions, few names at the top, small files."""

from __future__ import annotations

import ast
import json
import re
import socket
import subprocess
import sys
import tomllib
from importlib.metadata import PackageNotFoundError, packages_distributions, requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from pytest_socket import SocketConnectBlockedError

TOP_LEVEL = {
    "LICENSE",
    "README.md",
    "artifacts",
    "docker",
    "noxfile.py",
    "pyproject.toml",
    "quantship",
    "recipes",
    "tests",
}
MADE_BY_TOOLS = {"__pycache__", "build", "dist"}
LONGEST_FILE = 350
HEAVY = {
    *("accelerate", "datasets", "matplotlib", "numpy", "onnx", "onnxruntime", "sklearn", "torch"),
    "transformers",
}


@pytest.fixture(scope="module")
def pins(repository: Path) -> dict[str, str]:
    lines = (repository / "docker" / "constraints.txt").read_text().splitlines()
    pairs = [line.split("==") for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(name): version for name, version in pairs}


@pytest.fixture(scope="module")
def requirements(repository: Path) -> list[Requirement]:
    project = tomllib.loads((repository / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"].values()
    return [Requirement(line) for group in [project["dependencies"], *extras] for line in group]


@pytest.mark.parametrize("name", ["constraints.txt", "constraints-compat.txt"])
def test_constraints_hold_exact_versions_and_nothing_else(repository: Path, name: str) -> None:
    lines = (repository / "docker" / name).read_text().splitlines()
    entries = [line for line in lines if line and not line.startswith("#")]
    assert entries
    assert [line for line in entries if not re.fullmatch(r"[\w.-]+==[\w.]+", line)] == []


def test_clients_run_on_the_same_torch_and_onnxruntime(
    repository: Path, pins: dict[str, str]
) -> None:
    lines = (repository / "docker" / "constraints-compat.txt").read_text().splitlines()
    assert f"torch=={pins['torch']}" in lines
    assert f"onnxruntime=={pins['onnxruntime']}" in lines


def test_the_clients_of_node_come_from_whatever_registry_npm_is_told(repository: Path) -> None:
    lock = json.loads((repository / "tests" / "compat" / "package-lock.json").read_text())
    packages = {name: one for name, one in lock["packages"].items() if name}
    assert "node_modules/@huggingface/transformers" in packages
    assert all("integrity" in one and "resolved" not in one for one in packages.values())


def test_every_dependency_is_pinned_within_its_bounds(
    requirements: list[Requirement], pins: dict[str, str]
) -> None:
    assert requirements
    outside = [
        str(requirement)
        for requirement in requirements
        if not requirement.specifier.contains(pins.get(canonicalize_name(requirement.name), "0"))
    ]
    assert outside == []


def test_every_dependency_of_a_dependency_is_pinned(
    requirements: list[Requirement], pins: dict[str, str]
) -> None:
    waiting = [canonicalize_name(requirement.name) for requirement in requirements]
    reached: set[str] = set()
    while waiting:
        name = waiting.pop()
        if name in reached:
            continue
        reached.add(name)
        if name == "torch":  # pins its own, which differ from build to build
            continue
        try:
            lines = requires(name) or []
        except PackageNotFoundError:  # this environment was installed without every extra
            continue
        needed = [Requirement(line) for line in lines]
        waiting += [
            canonicalize_name(requirement.name)
            for requirement in needed
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""})
        ]
    assert len(reached) > len(requirements)
    assert sorted(reached - pins.keys()) == []


def test_every_library_the_package_imports_is_a_declared_dependency(repository: Path) -> None:
    project = tomllib.loads((repository / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    lines = [
        *project["dependencies"],
        *(line for key in extras.keys() - {"dev"} for line in extras[key]),
    ]
    declared = {canonicalize_name(Requirement(line).name) for line in lines}
    imported: set[str] = set()
    for path in (repository / "quantship").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                imported |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                imported.add(node.module.split(".")[0])
    foreign = (
        imported - sys.stdlib_module_names - {"quantship", "pydantic_core"}
    )  # pydantic pins it
    providers = packages_distributions()
    undeclared = {
        name
        for name in foreign
        if not declared.intersection(map(canonicalize_name, providers.get(name, [name])))
    }
    assert "torch" in foreign
    assert undeclared == set()


def test_the_top_level_holds_the_agreed_names_only(repository: Path) -> None:
    names = {path.name for path in repository.iterdir() if not path.name.startswith(".")}
    assert names - MADE_BY_TOOLS == TOP_LEVEL


def test_files_of_the_package_are_short(repository: Path) -> None:
    files = sorted((repository / "quantship").rglob("*.py"))
    assert files
    lengths = {
        path.relative_to(repository).as_posix(): len(path.read_text().splitlines())
        for path in files
    }
    assert {name: length for name, length in lengths.items() if length > LONGEST_FILE} == {}


@pytest.mark.parametrize("module", ["quantship.recipe", "quantship.cli"])
def test_reading_a_recipe_imports_nothing_heavy(module: str) -> None:
    code = f"import sys, {module}; print(*{{name.split('.')[0] for name in sys.modules}})"
    imported = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    ).stdout.split()
    assert {"quantship", "pydantic"} <= set(imported)
    assert HEAVY.intersection(imported) == set()


def test_sockets_reach_this_machine_and_no_other() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        socket.create_connection(server.getsockname()).close()
    blocked = pytest.raises(SocketConnectBlockedError)
    with pytest.warns(UserWarning, match="192.0.2.1"), blocked:
        socket.create_connection(("192.0.2.1", 80), timeout=1)
