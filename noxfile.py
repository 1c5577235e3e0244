"""Every check and every demonstration of quantship, each one command: ``nox -s NAME``.

Only ``lint`` and ``compat`` have environments of their own. The other sessions share the one that
``dev`` makes, because PyTorch is too large to install once for each of them. All versions come from
``docker/constraints.txt`` (``compat``: ``constraints-compat.txt``, for optimum-onnx needs an older
transformers); where packages come from is pip's own configuration.
"""

from __future__ import annotations

import os
import shutil
import sys
from importlib.util import find_spec
from pathlib import Path

import nox

HERE = Path(__file__).parent
CONSTRAINTS = "docker/constraints.txt"
NO_DATABASE = 77
"""Exit code of tests/audit.py where no database can be reached; it says so, loudly."""
NO_ENGINE = 77
"""Exit code of tests/container/session.py where there is no engine; it says so, loudly."""
NO_BROWSER = 77
"""Exit code of tests/browser/screenshots.py where there is no browser; it says so, loudly."""
SCRIPTS = HERE / ".nox" / "dev" / ("Scripts" if os.name == "nt" else "bin")

nox.needs_version = ">=2025.2.9"
nox.options.default_venv_backend = "venv"
nox.options.reuse_existing_virtualenvs = True
nox.options.sessions = ["lint", "types", "tests"]


def run(session: nox.Session, program: str, *arguments: str) -> None:
    """Run a program of the shared environment, with that environment first on the path."""
    path = os.pathsep.join([str(SCRIPTS), os.environ.get("PATH", "")])
    session.run(str(SCRIPTS / program), *arguments, env={"PATH": path})


@nox.session(default=False)
def dev(session: nox.Session) -> None:
    """Install quantship, editable, and its tools into .nox/dev, which other sessions share."""
    session.install("-c", CONSTRAINTS, "-e", ".[dev]")


@nox.session(requires=["dev"], venv_backend="none")
def quickstart(session: nox.Session) -> None:
    """Run the quickstart recipe; extra arguments go to ``quantship run``."""
    run(
        session,
        "quantship",
        *("run", "recipes/quickstart.yaml", "--artifacts", "artifacts"),
        *session.posargs,
    )


@nox.session
def lint(session: nox.Session) -> None:
    """Check style, formatting and that imports run one way."""
    session.install("-c", CONSTRAINTS, "ruff", "import-linter")
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    session.run("lint-imports")


@nox.session(requires=["dev"], venv_backend="none")
def types(session: nox.Session) -> None:
    """Check types, strictly."""
    run(session, "mypy", *session.posargs)


@nox.session(requires=["dev"], venv_backend="none")
def tests(session: nox.Session) -> None:
    """Run unit, contract and integration tests; extra arguments go to pytest."""
    run(
        session,
        "pytest",
        *("tests/unit", "tests/contracts", "tests/integration"),
        *("-m", "not gpu and not network"),
        *session.posargs,
    )


@nox.session(requires=["dev"], venv_backend="none")
def e2e(session: nox.Session) -> None:
    """Run whole recipes as a user does; extra arguments go to pytest."""
    run(session, "pytest", "tests/e2e", "-m", "not gpu and not network", *session.posargs)


@nox.session(requires=["dev"], venv_backend="none")
def faults(session: nox.Session) -> None:
    """Kill, stop and starve runs, and damage what they leave; extra arguments: --help says."""
    session.run(
        str(SCRIPTS / "python"),
        *("-m", "faults", *session.posargs),
        env={"PYTHONPATH": str(HERE / "tests" / "e2e")},
    )


@nox.session(requires=["dev"], venv_backend="none")
def browser(session: nox.Session) -> None:
    """Look at reports in headless Chromium; extra arguments go to pytest."""
    run(session, "pytest", "tests/browser", *session.posargs)


@nox.session(requires=["dev"], venv_backend="none")
def screenshots(session: nox.Session) -> None:
    """Take pictures of reports, and of those of the runs whose folders are named."""
    session.run(
        str(SCRIPTS / "python"),
        *("tests/browser/screenshots.py", *session.posargs),
        success_codes=[0, NO_BROWSER],
    )


@nox.session(requires=["dev"], venv_backend="none")
def bench(session: nox.Session) -> None:
    """Measure speed and memory; extra arguments go to tests/bench/run.py."""
    run(session, "python", "tests/bench/run.py", *session.posargs)


@nox.session(requires=["dev"], venv_backend="none")
def docker(session: nox.Session) -> None:
    """Build the image and try it; ``-- cuda``: that one too; other arguments go to pytest."""
    session.run(
        str(SCRIPTS / "python"),
        *("tests/container/session.py", *session.posargs),
        success_codes=[0, NO_ENGINE],
    )


@nox.session(requires=["dev"], venv_backend="none")
def fuzz(session: nox.Session) -> None:
    """Feed every reader with hostile files and record it: ``-- --minutes 10 --out FOLDER``."""
    run(session, "python", "tests/fuzz/run.py", *session.posargs)


@nox.session
def audit(session: nox.Session) -> None:
    """Look up the pinned packages in databases of known vulnerabilities; needs the network."""
    session.install("-c", CONSTRAINTS, "pip-audit")
    session.run(
        *("python", "tests/audit.py", CONSTRAINTS, *session.posargs),
        success_codes=[0, NO_DATABASE],
    )


@nox.session(requires=["dev"])
def compat(session: nox.Session) -> None:
    """Load exports in optimum, in an environment of its own, and in transformers.js."""
    rooms = Path(session.create_tmp()).resolve()
    exports = rooms / "exports"
    shutil.rmtree(exports, ignore_errors=True)
    python = str(SCRIPTS / "python")
    session.run(python, "tests/compat/exports.py", str(exports), external=True)
    env = {
        "QUANTSHIP_COMPAT_EXPORTS": str(exports),
        "QUANTSHIP_COMPAT_README": str(HERE / "README.md"),
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
    }
    packages = ("optimum-onnx[onnxruntime]", "torch", "pytest")
    session.install("-c", "docker/constraints-compat.txt", *packages)
    settings = ("-c", "tests/compat/pytest.ini")
    session.run("pytest", *settings, "tests/compat/optimum_client.py", *session.posargs, env=env)
    if shutil.which("node") is None or shutil.which("npm") is None:
        session.warn("transformers.js was not tried: there is no node and npm here")
        return
    node = rooms / "node"
    node.mkdir(exist_ok=True)
    for name in ("package.json", "package-lock.json", "transformers_js.test.mjs"):
        shutil.copy(HERE / "tests" / "compat" / name, node)
    with session.chdir(node):
        # Scripts of packages would fetch what CUDA needs.
        session.run("npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", external=True)
        tests = ("--test", "--test-reporter=spec", "transformers_js.test.mjs")
        session.run("node", *tests, env=env, external=True)


NEEDED = ("torch", "torchao", "transformers", "datasets", "accelerate", "pytest", "pytest_socket")
"""What ``gpu`` imports; where all of it is there, it installs nothing."""
PREPARED = all(find_spec(name) is not None for name in NEEDED)


@nox.session(requires=[] if PREPARED else ["dev"], venv_backend="none")
def gpu(session: nox.Session) -> None:
    """Run the tests that need a CUDA device, then measure; extra arguments go to the benchmark.

    Under ten minutes on one GPU of a data centre; nothing is downloaded. Where the Python that runs
    nox has what is needed, as on machines without a network, that is used; else .nox/dev is.
    """
    python = sys.executable if PREPARED else str(SCRIPTS / "python")
    env = {"PYTHONPATH": os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")])}
    asked = session.run(
        *(python, "-c", "import torch; print(torch.cuda.is_available())"),
        silent=True,
        external=True,
    )
    if str(asked).strip().splitlines()[-1:] != ["True"]:
        session.skip("PyTorch finds no CUDA device")
    session.run(python, "-m", "pytest", "tests/gpu", "-m", "gpu", env=env, external=True)
    session.run(python, "tests/bench/gpu.py", *session.posargs, env=env, external=True)
