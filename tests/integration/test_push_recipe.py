"""Recipes that push: refused before the work where they cannot, stopped by gates, done once."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from hub_api import Fault, Hub
from local_hub import serve
from pushing import READER, REPO, WRITER, environment, run

RECIPE = """\
name: gated
model: {tiny: {num_layers: 1}}
scheme: w8a16
data: {eval: [{adapter: builtin, split: eval, num_examples: 4}]}
evaluation: {parity_sequences: 2}
benchmark: null
steps:
  - {stage: quantize, name: ptq, input: model}
  - {stage: export, input: ptq}
gates: [{models: [ptq], perplexity: {max: 1.5}}]
push: {repo: me/tiny, models: [ptq, ptq-onnx]}
"""
LOOSE = "gates.0.perplexity.max=1e9"


@pytest.fixture
def hub() -> Iterator[Hub]:
    with serve({WRITER: True, READER: False}) as running:
        yield running


def start(
    hub: Hub, root: Path, *overrides: str, token: str | None = WRITER, text: str = RECIPE
) -> subprocess.CompletedProcess[str]:
    recipe = root / "gated.yaml"
    recipe.write_text(text)
    settings = [part for one in overrides for part in ("--set", one)]
    command = ["-m", "quantship", "run", str(recipe), "--artifacts", str(root / "artifacts")]
    env = environment(hub.url, root.parent / "home", token)
    return run([*command, *settings], env, root)


@pytest.mark.slow
def test_a_failed_gate_stops_the_push_and_a_loosened_one_lets_it_through_once(
    hub: Hub, tmp_path: Path
) -> None:
    root = tmp_path / "root"
    root.mkdir()
    failed = start(hub, root)
    assert failed.returncode == 4, failed.stderr
    assert "perplexity" in failed.stderr
    assert "nothing was pushed" in failed.stderr
    report = root / "artifacts" / "runs" / "gated"
    assert (report / "report.html").is_file()
    assert hub.repositories == {}

    done = start(hub, root, LOOSE)
    assert done.returncode == 0, done.stderr
    assert f"{hub.url}/{REPO} at" in done.stdout
    repository = hub.repositories[REPO]
    assert repository.visibility == "private"
    assert repository.files["report.json"] == (report / "report.json").read_bytes()
    assert {"lock.json", "bom.cdx.json", "onnx/model_int8.onnx"} <= repository.files.keys()
    uploads, commits = hub.count("put"), hub.count("commit")

    again = start(hub, root, LOOSE)
    assert again.returncode == 0, again.stderr
    assert "unchanged at" in again.stdout
    assert (hub.count("put"), hub.count("commit")) == (uploads, commits)


@pytest.mark.parametrize(
    ("token", "what"),
    [(None, "there is no token"), (READER, "may only read"), ("hf_nobodys", "401")],
    ids=["missing", "read-only", "unknown"],
)
def test_a_token_that_will_not_do_is_found_before_the_work(
    hub: Hub, tmp_path: Path, token: str | None, what: str
) -> None:
    root = tmp_path / "root"
    root.mkdir()
    done = start(hub, root, token=token)
    assert done.returncode == 3
    assert what in done.stderr
    assert "hf auth login" in done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    assert not (root / "artifacts" / "steps").exists()
    assert hub.repositories == {}


def test_a_repository_of_others_is_found_before_the_work(hub: Hub, tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    hub.fail("auth", Fault(403))
    from hub_api import Repository, committed

    hub.repositories[REPO] = Repository("public", {"main": [committed([], "first", {})]})
    done = start(hub, root)
    assert done.returncode == 3
    assert "may not do this (403)" in done.stderr
    assert not (root / "artifacts" / "steps").exists()


@pytest.mark.slow
def test_a_hub_that_is_away_is_a_warning_before_and_an_error_after(
    hub: Hub, tmp_path: Path
) -> None:
    root = tmp_path / "root"
    root.mkdir()
    hub.fail("whoami", Fault(503))
    hub.fail("create", *[Fault(503)] * 30)
    done = start(hub, root, LOOSE)
    assert "is not known: the Hub is not reached" in " ".join(done.stdout.split())
    assert done.returncode == 3
    assert "the same command uploads what is missing" in done.stderr
    assert (root / "artifacts" / "runs" / "gated" / "report.json").is_file()


def test_a_license_that_forbids_it_is_found_before_the_work(
    hub: Hub, finished_run: Path, tmp_path: Path
) -> None:
    root, base = tmp_path / "root", tmp_path / "base"
    root.mkdir()
    base.symlink_to(finished_run / "models" / "model", target_is_directory=True)
    text = RECIPE.replace("{tiny: {num_layers: 1}}", str(base)).replace(
        "num_examples: 4}]", "num_examples: 4}], max_length: 96"
    )
    done = start(hub, root, text=text)
    assert done.returncode == 2
    assert "the base model states no license" in done.stderr
    assert "push.license" in done.stderr
    assert not (root / "artifacts" / "steps").exists()
    assert hub.repositories == {}
