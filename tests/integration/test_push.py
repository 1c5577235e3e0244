"""Pushing models: the real huggingface_hub against a Hub on this machine.

It runs in a process of its own, because huggingface_hub reads its environment when it is imported.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from local_hub import Hub, serve

REPO = "me/tiny"
WRITER = "hf_writersSecretWritersSecretWriters"
READER = "hf_readersSecretReadersSecretReaders"
REPORT = ("report.html", "report.json", "report.md")
LOGIN = ("hf auth login", "HF_TOKEN", REPO)

UPLOAD = """
import sys, traceback
from pathlib import Path
from quantship.artifact import Artifact
from quantship.errors import StageError
from quantship.recipe.language import Push
from quantship.stages.push import upload

root, *models = sys.argv[1:]
made = {name: Artifact(Path(root, name), "", "", {}) for name in models}
try:
    print(upload(Push(repo="me/tiny", models=tuple(models)), made, Path(root, "report")))
except StageError as error:
    Path(root, "debug.txt").write_text(traceback.format_exc())
    sys.exit(str(error))
"""

RECIPE = """\
name: pushed
model: {tiny: {num_layers: 1}}
scheme: w8a16
data: {eval: [{adapter: builtin, split: eval}]}
evaluation: null
benchmark: null
steps:
  - {stage: quantize, name: ptq, input: model}
  - {stage: export, input: ptq}
push: {repo: me/tiny, models: [ptq, ptq-onnx], private: false}
"""


@pytest.fixture
def hub() -> Iterator[Hub]:
    with serve({WRITER: True, READER: False}) as running:
        yield running


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two fabricated models, and a report with what lies beside it."""
    import numpy as np
    from safetensors.numpy import save_file

    path = tmp_path / "root"
    for seed, name in enumerate(("qat", "qat-onnx")):
        (path / name / "deeper").mkdir(parents=True)
        weights = np.random.default_rng(seed).normal(size=(32, 32)).astype("float32")
        save_file({"weight": weights}, path / name / "model.safetensors")
        for file in ("artifact.json", "config.json", "error.log", "deeper/a.log", "deeper/a.json"):
            (path / name / file).write_text(f'{{"{name}": "{file}"}}')
    (path / "qat-onnx" / "model.onnx_data").write_bytes(bytes(range(256)) * 40)
    (path / "qat" / "empty.txt").touch()
    (path / "report").mkdir()
    for file in (*REPORT, "artifacts.json"):
        (path / "report" / file).write_text(f"{file}: ±\n")
    (path / "report" / "models").mkdir()
    (path / "report" / "models" / "qat").symlink_to("../../qat")
    return path


def environment(url: str, root: Path, token: str | None) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    ours = {"HF_ENDPOINT": url, "HF_HOME": str(root.parent / "home"), "HF_HUB_DISABLE_XET": "1"}
    return {**kept, **ours, **({} if token is None else {"HF_TOKEN": token})}


def run(arguments: list[str], root: Path, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Run Python, and see to it that no token is in what it prints or writes, or in tracebacks."""
    command = [sys.executable, *arguments]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=300)
    texts = [done.stdout.encode(), done.stderr.encode()]
    texts += [file.read_bytes() for file in root.rglob("*") if file.is_file()]
    for secret in (WRITER, READER, env.get("HF_TOKEN") or WRITER):
        assert not any(secret.encode() in text for text in texts)
    return done


def push(
    url: str, root: Path, token: str | None = WRITER, **more: str
) -> subprocess.CompletedProcess[str]:
    env = environment(url, root, token) | more
    return run(["-c", UPLOAD, str(root), "qat", "qat-onnx"], root, env)


def refusal(done: subprocess.CompletedProcess[str], root: Path) -> str:
    """The error's message, which is all that the user sees."""
    assert done.returncode == 1
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    assert "Traceback" in (root / "debug.txt").read_text()
    message = done.stderr[done.stderr.index("step 'push' failed: ") :]
    assert REPO in message
    assert "the same command uploads what is missing" in message
    return message


def expected(root: Path) -> dict[str, bytes]:
    """What the repository should hold: path to content."""
    models = {
        f"{name}/{file.relative_to(root / name).as_posix()}": file.read_bytes()
        for name in ("qat", "qat-onnx")
        for file in (root / name).rglob("*")
        if file.is_file() and file.name != "artifact.json" and file.suffix != ".log"
    }
    return models | {file: (root / "report" / file).read_bytes() for file in REPORT}


def test_models_and_report_arrive_byte_for_byte(hub: Hub, root: Path) -> None:
    done = push(hub.url, root)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == f"{hub.url}/{REPO}"
    repository = hub.repositories[REPO]
    assert repository.files == expected(root)
    assert sorted(name for name in repository.files if "safetensors" in name) == [
        "qat-onnx/model.safetensors",
        "qat/model.safetensors",
    ]
    assert repository.commits == ["Upload qat", "Upload qat-onnx", "Upload the report"]
    assert repository.visibility == "private"
    assert hub.count("put") == 3


def test_a_second_push_uploads_only_what_has_changed(hub: Hub, root: Path) -> None:
    assert push(hub.url, root).returncode == 0
    uploads, commits = hub.count("put"), hub.count("commit")
    again = push(hub.url, root)
    assert again.returncode == 0, again.stderr
    assert (hub.count("put"), hub.count("commit")) == (uploads, commits)

    (root / "qat-onnx" / "model.onnx_data").write_bytes(b"other weights")
    assert push(hub.url, root).returncode == 0
    assert (hub.count("put"), hub.count("commit")) == (uploads + 1, commits + 1)
    assert hub.repositories[REPO].files == expected(root)


def test_the_login_of_huggingface_hub_will_do(hub: Hub, root: Path) -> None:
    home = root.parent / "home"
    home.mkdir()
    (home / "token").write_text(WRITER + "\n")
    done = push(hub.url, root, None, HF_HUB_DISABLE_IMPLICIT_TOKEN="1")
    assert done.returncode == 0, done.stderr
    assert hub.repositories[REPO].files == expected(root)


@pytest.mark.parametrize(
    ("token", "what"),
    [
        (None, "there is no token"),
        ("hf_unknownUnknownUnknown", "does not accept the token (401): Invalid username"),
        (READER, "may not do this (403): You don't have the rights"),
        ("\x1b[200~" + WRITER, "characters that no token has"),
        ("“" + WRITER + "”", "characters that no token has"),
    ],
    ids=["missing", "unknown", "read-only", "pasted", "quoted"],
)
def test_a_token_that_will_not_do(hub: Hub, root: Path, token: str | None, what: str) -> None:
    message = refusal(push(hub.url, root, token), root)
    assert what in message
    for word in LOGIN:
        assert word in message
    assert hub.repositories == {}


def test_a_token_that_may_not_write_to_a_repository_of_others(hub: Hub, root: Path) -> None:
    assert push(hub.url, root).returncode == 0
    before = dict(hub.repositories[REPO].files)
    (root / "qat" / "config.json").write_text("{}")
    message = refusal(push(hub.url, root, READER), root)
    assert "403" in message
    assert "hf auth login" in message
    assert hub.repositories[REPO].files == before


def test_a_hub_that_stumbles_twice(hub: Hub, root: Path) -> None:
    hub.failing.update(preupload=2, put=2)
    done = push(hub.url, root)
    assert done.returncode == 0, done.stderr
    assert hub.failing.total() == 0
    assert hub.repositories[REPO].files == expected(root)


def test_a_hub_that_fails_is_quoted_and_the_next_push_goes_on(hub: Hub, root: Path) -> None:
    hub.failing.update(commit=1)  # huggingface_hub does not send a commit twice
    message = refusal(push(hub.url, root), root)
    assert "500" in message
    assert "Internal Error" in message
    uploads = hub.count("put")
    assert push(hub.url, root).returncode == 0
    assert hub.repositories[REPO].files == expected(root)
    assert hub.count("put") == 3
    assert uploads == 1


def test_a_file_that_cannot_be_stored_is_named(hub: Hub, root: Path) -> None:
    hub.failing.update(put=100)
    message = refusal(push(hub.url, root), root)
    assert "qat/model.safetensors" in message
    assert "500" in message
    assert hub.repositories[REPO].commits == []


def test_a_hub_that_cannot_be_reached(root: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
    message = refusal(push(url, root), root)
    assert "refused" in message
    assert url in message
    assert "network" in message


def test_offline_mode_is_named(hub: Hub, root: Path) -> None:
    message = refusal(push(hub.url, root, HF_HUB_OFFLINE="1"), root)
    assert "HF_HUB_OFFLINE" in message
    assert hub.requests == []


def test_xet_failing_is_an_error_as_any_other(hub: Hub, root: Path) -> None:
    message = refusal(push(hub.url, root, HF_HUB_DISABLE_XET="0"), root)
    assert hub.url in message
    assert hub.repositories[REPO].commits == []


@pytest.mark.slow
def test_a_recipe_pushes_and_pushes_again_what_was_refused(hub: Hub, tmp_path: Path) -> None:
    recipe, root = tmp_path / "recipe.yaml", tmp_path / "artifacts"
    recipe.write_text(RECIPE)
    arguments = ["-m", "quantship", "run", str(recipe), "--artifacts", str(root)]
    refused = run(arguments, root, environment(hub.url, root, READER))
    assert refused.returncode == 3
    assert "Traceback" not in refused.stdout + refused.stderr
    for word in LOGIN:
        assert word in refused.stderr
    debug = run([*arguments, "--debug"], root, environment(hub.url, root, READER))
    assert "Traceback" in debug.stderr

    done = run(arguments, root, environment(hub.url, root, WRITER))
    assert done.returncode == 0, done.stderr
    assert f"{hub.url}/{REPO}" in done.stdout
    assert "ptq-onnx" in done.stdout
    repository = hub.repositories[REPO]
    assert repository.visibility == "public"
    report = root / "runs" / "pushed"
    for name in ("ptq", "ptq-onnx"):
        directory = report / "models" / name
        local = {file.name: file.read_bytes() for file in directory.iterdir()}
        for unwanted in {"artifact.json", "export.log"} & local.keys():
            del local[unwanted]
        assert {f"{name}/{file}": data for file, data in local.items()} == {
            path: data for path, data in repository.files.items() if path.startswith(f"{name}/")
        }
    for file in REPORT:
        assert repository.files[file] == (report / file).read_bytes()
