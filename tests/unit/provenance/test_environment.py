from __future__ import annotations

import subprocess
from importlib import metadata
from pathlib import Path

import pytest

from quantship.provenance import environment
from quantship.provenance.lock_schema import Environment


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A package in a git checkout."""
    folder = tmp_path / "project" / "quantship"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text("")
    git(folder, "init", "--quiet")
    return folder


def git(folder: Path, *arguments: str) -> str:
    who = ("-c", "user.name=a", "-c", "user.email=a@b.c", "-c", "commit.gpgsign=false")
    done = subprocess.run(
        ["git", *who, *arguments], cwd=folder, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def test_a_checkout_is_known_by_its_commit_and_is_dirty_once_changed(package: Path) -> None:
    git(package, "add", "--all")
    git(package, "commit", "--quiet", "--message", "first")
    clean = environment.checkout.__wrapped__(package)
    assert clean is not None
    assert clean.commit == git(package, "rev-parse", "HEAD")
    assert not clean.dirty
    (package.parent / "notes.txt").write_text("not the package's")
    assert environment.checkout.__wrapped__(package) == clean
    (package / "new.py").write_text("x = 1")
    dirty = environment.checkout.__wrapped__(package)
    assert dirty is not None
    assert (dirty.commit, dirty.dirty) == (clean.commit, True)


def test_a_package_that_another_projects_checkout_is_around_is_installed(package: Path) -> None:
    assert environment.checkout.__wrapped__(package) is None


def test_packages_are_those_that_quantship_needs_and_those_need() -> None:
    found = dict(environment.packages())
    for name in ("torch", "torchao", "transformers", "onnxruntime", "numpy", "regex"):
        assert found[name] == metadata.version(name)
    assert list(found) == sorted(found)
    for name in ("pytest", "mypy", "ruff"):
        assert name not in found


def test_an_environment_tells_no_paths_and_no_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    text = environment.current().model_dump_json()
    assert "hf_secret" not in text
    assert str(Path.home()) not in text


def test_threads_are_told(monkeypatch: pytest.MonkeyPatch, one_thread: None) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    threads = environment.current().threads
    assert threads["torch"] == "1"
    assert threads["OMP_NUM_THREADS"] == "3"


def test_a_key_is_of_all_that_is_in_an_environment() -> None:
    here = environment.current()
    assert environment.key(here) == environment.key(
        Environment.model_validate_json(here.model_dump_json())
    )
    assert environment.key(here.model_copy(update={"num_cpus": 999})) != environment.key(here)
