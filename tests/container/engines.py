"""The container engine of this machine, and how the image is built with it.

Docker or podman that answers is used as it is. Where a machine reaches no registry, a folder named
by QUANTSHIP_CONTAINER_TOOLS, or ../shared/tools beside the repository, may hold two scripts:
container-engine.sh sets up an engine and a base image, container-build.sh builds upon that.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import quantship

REPOSITORY = Path(__file__).parents[2]
DOCKERFILE = "docker/Dockerfile"
PROGRAMS = ("docker", "podman")
SIZES = "/opt/venv/share/quantship/sizes.py"


def find() -> str | None:
    """The engine's program, set up first where there are scripts for that; None: there is none."""
    found = answering()
    if tools() is None:
        return found
    engine = found or os.environ.get("ENGINE", PROGRAMS[0])
    script = str(_script("container-engine.sh"))
    done = subprocess.run(["bash", script], env=os.environ | {"ENGINE": engine}, check=False)
    return engine if done.returncode == 0 else found


def answering() -> str | None:
    """The first engine that runs already."""
    asked = os.environ.get("QUANTSHIP_CONTAINER_ENGINE")
    for program in (asked,) if asked else PROGRAMS:
        if shutil.which(program) is None:
            continue
        if subprocess.run([program, "info"], capture_output=True, check=False).returncode == 0:
            return program
    return None


def tools() -> Path | None:
    """Folder of the scripts for a machine that reaches no registry."""
    named = os.environ.get("QUANTSHIP_CONTAINER_TOOLS")
    folder = Path(named) if named else REPOSITORY.parent / "shared" / "tools"
    return folder if (folder / "container-engine.sh").is_file() else None


def build(engine: str, target: str, tag: str) -> None:
    """Build one target of the Dockerfile, showing what the engine says.

    Raises:
        subprocess.CalledProcessError: It cannot be built.
    """
    said = {"VERSION": quantship.__version__, "REVISION": _revision()}
    options = ["--target", target]
    if tools() is None:
        command = [engine, "build", "-f", DOCKERFILE, "-t", tag]
        context = ["."]
    else:
        command = ["bash", str(_script("container-build.sh")), "-f", DOCKERFILE, ".", tag]
        context = []
        said["TORCH_INDEX"] = ""  # its packages come from where pip's own settings say
    for name, value in said.items():
        options += ["--build-arg", f"{name}={value}"]
    env = os.environ | {"ENGINE": engine}
    subprocess.run([*command, *options, *context], cwd=REPOSITORY, env=env, check=True)


def size_bytes(engine: str, image: str) -> int:
    """What the engine says that the image takes."""
    return int(ask(engine, "image", "inspect", "--format", "{{.Size}}", image))


def ask(engine: str, *arguments: str) -> str:
    """What the engine answers.

    Raises:
        subprocess.CalledProcessError: It refuses.
    """
    done = subprocess.run([engine, *arguments], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def _script(name: str) -> Path:
    folder = tools()
    assert folder is not None
    return folder / name


def _revision() -> str:
    """The commit that is checked out; empty where there is no git."""
    try:
        return ask("git", "-C", str(REPOSITORY), "rev-parse", "HEAD")
    except (OSError, subprocess.CalledProcessError):
        return ""
