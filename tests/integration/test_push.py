"""Pushing a finished run: the real huggingface_hub against a Hub on this machine."""

from __future__ import annotations

import hashlib
import json
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hub_api import Hub
from local_hub import serve
from pushing import READER, REPO, WRITER, push

from quantship import sealed
from quantship.artifact import MANIFEST, digests

LOGIN = ("hf auth login", "HF_TOKEN", REPO)
Push = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def hub() -> Iterator[Hub]:
    with serve({WRITER: True, READER: False}) as running:
        yield running


@pytest.fixture
def pushed(hub: Hub, finished_run: Path, tmp_path: Path) -> Push:
    """Push the run (or a changed copy of it) to the Hub."""

    def call(*arguments: str, directory: Path = finished_run, **options: str | None) -> object:
        return push(directory, hub.url, tmp_path / "home", *arguments, **options)  # type: ignore[arg-type]

    return call  # type: ignore[return-value]


@pytest.fixture
def copy(finished_run: Path, tmp_path: Path) -> Path:
    """A copy of the run, to be changed."""
    root = tmp_path / "copy"
    shutil.copytree(finished_run.parents[1], root, symlinks=True)
    return root / "runs" / finished_run.name


def succeeded(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 0, done.stderr
    return done.stdout


def refusal(done: subprocess.CompletedProcess[str], status: int = 3) -> str:
    """The error's message, which is all that the user sees."""
    assert done.returncode == status, done.stderr
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    return done.stderr


def test_a_checkpoint_is_at_the_top_and_onnx_in_its_folder(
    hub: Hub, pushed: Push, finished_run: Path
) -> None:
    assert f"{hub.url}/{REPO} at " in succeeded(pushed())
    files = hub.repositories[REPO].files
    models = finished_run / "models"
    assert files["model.safetensors"] == (models / "qat" / "model.safetensors").read_bytes()
    for stem, name in (("model_quantized", "qat-onnx"), ("model_q4", "ptq-onnx")):
        data = (models / name / "model.onnx_data").read_bytes()
        assert files[f"onnx/{stem}.onnx_data"] == data
        assert f"{stem}.onnx_data".encode() in files[f"onnx/{stem}.onnx"]
        assert b"model.onnx_data" not in files[f"onnx/{stem}.onnx"]
    for name in ("report.json", "report.md", "report.html"):
        assert files[name] == (finished_run / name).read_bytes()
    assert {"README.md", "recipe.yaml", "SHA256SUMS"} <= files.keys()
    assert not any("artifact.json" in path or path.endswith(".log") for path in files)
    config = json.loads(files["config.json"])
    assert config["quantization_config"]["quant_method"] == "torchao"
    assert config["transformers.js_config"] == {
        "dtype": "q8",
        "use_external_data_format": {"model_quantized.onnx": 1, "model_q4.onnx": 1},
    }
    genai = json.loads(files["onnx/genai_config.json"])
    assert genai["model"]["decoder"]["filename"] == "model_quantized.onnx"


def finish_anew(model: Path) -> None:
    """Let the manifest list what is there, as that of a model that was made so."""
    manifest = sealed.loads((model / MANIFEST).read_bytes())
    manifest["files"] = {name: file for name, file in digests(model).items() if name != MANIFEST}
    (model / MANIFEST).write_text(sealed.dumps(manifest))


def test_a_damaged_model_is_not_uploaded(hub: Hub, pushed: Push, copy: Path) -> None:
    (copy / "models" / "qat" / "config.json").write_text("{}")
    done = pushed(directory=copy)
    assert done.returncode == 2
    assert "model 'qat'" in done.stderr
    assert "is damaged" in done.stderr
    assert hub.repositories == {}


def test_the_sums_are_of_what_was_uploaded(hub: Hub, pushed: Push) -> None:
    succeeded(pushed())
    files = hub.repositories[REPO].files
    lines = files["SHA256SUMS"].decode().splitlines()
    listed = {path: digest for digest, path in (line.split("  ") for line in lines)}
    assert listed == {
        path: hashlib.sha256(data).hexdigest()
        for path, data in files.items()
        if path != "SHA256SUMS"
    }


def test_one_commit_holds_everything_and_is_private(hub: Hub, pushed: Push) -> None:
    succeeded(pushed())
    repository = hub.repositories[REPO]
    assert repository.commits == ["Upload qat, qat-onnx, ptq-onnx with quantship"]
    assert repository.visibility == "private"


def test_a_second_push_uploads_nothing(hub: Hub, pushed: Push) -> None:
    succeeded(pushed())
    before = hub.count("put"), hub.count("commit")
    assert before == (5, 1)
    assert "unchanged at" in succeeded(pushed())
    assert (hub.count("put"), hub.count("commit")) == before


def test_a_push_sends_only_what_has_changed(hub: Hub, pushed: Push, copy: Path) -> None:
    succeeded(pushed(directory=copy))
    uploads, commits = hub.count("put"), hub.count("commit")
    data = copy / "models" / "qat-onnx" / "model.onnx_data"
    data.write_bytes(data.read_bytes()[::-1])
    finish_anew(data.parent)
    succeeded(pushed(directory=copy))
    assert (hub.count("put"), hub.count("commit")) == (uploads + 1, commits + 1)
    assert hub.repositories[REPO].files["onnx/model_quantized.onnx_data"] == data.read_bytes()


def test_what_an_earlier_push_left_goes_and_what_others_put_there_stays(
    hub: Hub, pushed: Push
) -> None:
    succeeded(pushed())
    main = hub.repositories[REPO].branches["main"]
    main[-1].files["figure.png"] = b"of somebody else"
    succeeded(pushed(models=("qat", "qat-onnx")))
    files = hub.repositories[REPO].files
    assert not any("model_q4" in path for path in files)
    assert files["figure.png"] == b"of somebody else"
    assert len(hub.repositories[REPO].commits) == 2


def test_a_dry_run_lists_files_and_bytes_without_token_and_network(hub: Hub, pushed: Push) -> None:
    said = succeeded(pushed("--dry-run", token=None, HF_HUB_OFFLINE="1"))
    assert hub.requests == []
    succeeded(pushed())
    files = hub.repositories[REPO].files
    listed = [line.split() for line in said.splitlines() if line.strip()[:1].isdigit()]
    shown = {path: int(size.replace(",", "")) for size, path, *rest in listed if not rest}
    assert shown == {path: len(data) for path, data in files.items()}
    assert f"{len(files)} files, {sum(map(len, files.values())):,} bytes" in said
    assert REPO in said
    assert "private" in said


def recipe_with(tmp_path: Path, push: str) -> Path:
    from pushing import RECIPE

    recipe = tmp_path / "pushed.yaml"
    recipe.write_text(f"{RECIPE}push: {push}\n")
    return recipe


def push_recipe(
    hub: Hub, run: Path, tmp_path: Path, options: str, *arguments: str
) -> subprocess.CompletedProcess[str]:
    """``quantship push`` a recipe whose run is there."""
    import pushing

    recipe = recipe_with(tmp_path, options)
    artifacts = str(run.parents[1])
    command = ["-m", "quantship", "push", str(recipe), "--artifacts", artifacts, *arguments]
    env = pushing.environment(hub.url, tmp_path / "home")
    return pushing.run(command, env, tmp_path)


def test_a_recipe_says_what_to_push_after_its_run(
    hub: Hub, finished_run: Path, tmp_path: Path
) -> None:
    options = "{repo: me/tiny, models: [qat, qat-onnx], layout: several, private: false}"
    said = succeeded(push_recipe(hub, finished_run, tmp_path, options))
    assert said.count("✓") == 2
    checkpoint, exported = (hub.repositories[f"{REPO}-{name}"] for name in ("qat", "qat-onnx"))
    assert checkpoint.visibility == exported.visibility == "public"
    assert "model.safetensors" in checkpoint.files
    assert not any("onnx" in path for path in checkpoint.files)
    assert "onnx/model_quantized.onnx" in exported.files
    assert {"config.json", "tokenizer.json"} <= exported.files.keys()
    assert not any("safetensors" in path for path in exported.files)


def test_folders_hold_models_as_they_lie_on_disk(
    hub: Hub, finished_run: Path, tmp_path: Path
) -> None:
    options = "{repo: me/tiny, models: [qat, ptq, qat-onnx], layout: folders}"
    succeeded(push_recipe(hub, finished_run, tmp_path, options))
    files = hub.repositories[REPO].files
    for name in ("qat", "ptq", "qat-onnx"):
        local = {
            file.name: file.read_bytes()
            for file in (finished_run / "models" / name).iterdir()
            if file.name not in ("artifact.json", "lock.json") and file.suffix != ".log"
        }
        folder = {path: data for path, data in files.items() if path.startswith(f"{name}/")}
        assert {f"{name}/{file}": data for file, data in local.items()} == folder


def test_a_branch_and_a_tag_are_made(hub: Hub, finished_run: Path, tmp_path: Path) -> None:
    options = "{repo: me/tiny, models: [qat], revision: next, tag: v1}"
    succeeded(push_recipe(hub, finished_run, tmp_path, options))
    repository = hub.repositories[REPO]
    assert repository.files == {}
    assert "model.safetensors" in repository.on("next")
    assert repository.tags == {"v1": repository.branches["next"][-1].oid}
    again = push_recipe(hub, finished_run, tmp_path, options)
    assert "unchanged at" in succeeded(again)
    repository.tags["v1"] = repository.branches["main"][0].oid
    assert "the tag v1 is on another commit" in refusal(
        push_recipe(hub, finished_run, tmp_path, options)
    )


def test_a_recipe_that_has_changed_since_is_not_what_was_run(
    hub: Hub, finished_run: Path, tmp_path: Path
) -> None:
    options = "{repo: me/tiny, models: [qat]}"
    done = push_recipe(hub, finished_run, tmp_path, options, "--set", "seed=1")
    assert "was made from another recipe (seed)" in refusal(done, 2)
    assert hub.requests == []


def test_a_public_repository_stays_public_and_one_is_told(hub: Hub, pushed: Push) -> None:
    succeeded(pushed())
    hub.repositories[REPO].visibility = "public"
    said = succeeded(pushed())
    assert "is public, and the recipe asks for private: it stays public" in " ".join(said.split())
    assert hub.repositories[REPO].visibility == "public"


def test_a_run_of_which_a_gate_failed_is_not_pushed(hub: Hub, pushed: Push, copy: Path) -> None:
    report = json.loads((copy / "report.json").read_text())
    gate = {"model": "qat", "metric": "perplexity", "over": "finetune", "limit": 0.02}
    gate |= {"rule": "at most 2 % above finetune", "value": 0.05, "measured": "5 % above"}
    gate |= {"bound": None, "confidence": None, "passed": False}
    gate |= {"reason": "perplexity of qat is 5 % above"}
    (copy / "report.json").write_text(json.dumps({**report, "gates": [gate]}))
    for arguments in ((), ("--dry-run",)):
        assert "perplexity of qat is 5 % above" in refusal(pushed(*arguments, directory=copy), 4)
    assert hub.requests == []


def test_the_login_of_huggingface_hub_will_do(hub: Hub, pushed: Push, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "token").write_text(WRITER + "\n")
    succeeded(pushed(token=None, HF_HUB_DISABLE_IMPLICIT_TOKEN="1"))
    assert "model.safetensors" in hub.repositories[REPO].files


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
def test_a_token_that_will_not_do(hub: Hub, pushed: Push, token: str | None, what: str) -> None:
    message = refusal(pushed(token=token))
    assert what in message
    for word in LOGIN:
        assert word in message
    assert hub.repositories == {}


def test_a_traceback_shows_no_token(hub: Hub, pushed: Push) -> None:
    assert "Traceback" in pushed("--debug", token=READER).stderr


def test_a_token_that_may_not_write_to_a_repository_of_others(
    hub: Hub, pushed: Push, copy: Path
) -> None:
    succeeded(pushed(directory=copy))
    before = dict(hub.repositories[REPO].files)
    (copy / "models" / "qat" / "generation_config.json").write_text("{}")
    finish_anew(copy / "models" / "qat")
    message = refusal(pushed(directory=copy, token=READER))
    assert "403" in message
    assert "hf auth login" in message
    assert hub.repositories[REPO].files == before


def test_a_hub_that_cannot_be_reached(finished_run: Path, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
    message = refusal(push(finished_run, url, tmp_path / "home"))
    assert "refused" in message
    assert url in message
    assert "network" in message


def test_offline_mode_is_named(hub: Hub, pushed: Push) -> None:
    assert "HF_HUB_OFFLINE" in refusal(pushed(HF_HUB_OFFLINE="1"))
    assert hub.requests == []


def test_xet_failing_is_an_error_as_any_other(hub: Hub, pushed: Push) -> None:
    message = refusal(pushed(HF_HUB_DISABLE_XET="0"))
    assert hub.url in message
    assert hub.repositories[REPO].commits == []


def test_a_directory_that_is_no_run_is_named(hub: Hub, pushed: Push, tmp_path: Path) -> None:
    empty = tmp_path / "a" / "b" / "c"
    empty.mkdir(parents=True)
    assert "no finished run" in refusal(pushed(directory=empty), 2)
