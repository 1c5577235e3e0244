"""The images that ``nox -s docker`` has built, or that were built by hand under the same names."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import engines
import pytest
from images import LOCKED, ME, ONE_THREAD, RECIPE, Image


def _image(target: str) -> Image:
    engine = engines.answering()
    if engine is None:
        pytest.skip("no container engine answers; `nox -s docker` looks for one")
    name = os.environ.get(f"QUANTSHIP_IMAGE_{target.upper()}", f"quantship:{target}")
    asked = subprocess.run([engine, "image", "inspect", name], capture_output=True, check=False)
    if asked.returncode != 0:
        pytest.skip(f"no image {name}; `nox -s docker -- {target}` builds it")
    return Image(engine, name)


@pytest.fixture(scope="session")
def image() -> Image:
    """The image for CPUs."""
    return _image("cpu")


@pytest.fixture(scope="session")
def cuda_image() -> Image:
    """The image for NVIDIA GPUs."""
    return _image("cuda")


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    """A folder of the calling user's with recipe.yaml in it."""
    folder = tmp_path / "workspace"
    folder.mkdir()
    (folder / "recipe.yaml").write_text(RECIPE)
    return folder


@pytest.fixture
def quantship_in(image: Image) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run the image as a careful user does, with a folder mounted as its workspace."""

    def run(folder: Path, *arguments: str, user: str = ME) -> subprocess.CompletedProcess[str]:
        mount = ("-v", f"{folder}:/workspace")
        return image.run(*arguments, options=("--user", user, *LOCKED, *mount, *ONE_THREAD))

    return run
