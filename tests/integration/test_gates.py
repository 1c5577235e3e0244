"""Gates through the command line: a failed one stops the push, and nothing is made twice."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hub_api import Hub
from local_hub import serve

REPO = "me/gated"
TOKEN = "hf_gatesSecretGatesSecretGatesSecret"
RECIPE = """\
name: gated
model: {tiny: {num_layers: 1}}
scheme: w8a16
data: {eval: [{adapter: builtin, split: eval, num_examples: 16}], max_length: 128}
evaluation:
  tasks: [{task: perplexity, name: again, limit: 12}]
benchmark: null
steps:
  - {stage: quantize, name: ptq, input: model}
  - {stage: export, input: [model, ptq]}
gates:
  - perplexity: {max_increase: 5%, over: model, confidence: 0.95}
    again.perplexity: {max_increase: 5%, over: model}
    codes_equal: true
    top1_agreement: {min: 0.8}
    size: {max_ratio: LIMIT, over: model}
push: {repo: me/gated, models: [ptq, ptq-onnx], private: false, license: apache-2.0}
"""


@pytest.fixture
def hub() -> Iterator[Hub]:
    with serve({TOKEN: True}) as running:
        yield running


def run(hub: Hub, folder: Path, limit: str) -> subprocess.CompletedProcess[str]:
    recipe = folder / "gated.yaml"
    recipe.write_text(RECIPE.replace("LIMIT", limit))
    kept = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    ours = {
        "HF_ENDPOINT": hub.url,
        "HF_HOME": str(folder / "home"),
        "HF_HUB_DISABLE_XET": "1",
        "HF_TOKEN": TOKEN,
        "OMP_NUM_THREADS": "1",
        "MKL_NUM_THREADS": "1",
    }
    command = ["run", str(recipe), "--artifacts", str(folder / "artifacts")]
    return subprocess.run(
        [sys.executable, "-m", "quantship", *command],
        env=kept | ours,
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.mark.enable_socket
def test_a_failed_gate_stops_the_push_and_a_looser_one_lets_the_same_models_through(
    hub: Hub, tmp_path: Path
) -> None:
    stopped = run(hub, tmp_path, "0.1")
    assert stopped.returncode == 4, stopped.stderr
    assert "✗" in stopped.stdout
    assert "at most 0.1 × that of model" in stopped.stdout
    assert "2 gates fail (nothing was pushed" in stopped.stderr
    assert "size of ptq is" in stopped.stderr
    assert "Traceback" not in stopped.stderr
    assert REPO not in hub.repositories

    report = tmp_path / "artifacts" / "runs" / "gated"
    gates = json.loads((report / "report.json").read_text())["gates"]
    failed = [(one["model"], one["metric"]) for one in gates if not one["passed"]]
    assert failed == [("ptq", "size"), ("ptq-onnx", "size")]
    by_metric = {one["metric"] for one in gates}
    assert by_metric == {
        "perplexity",
        "again.perplexity",
        "codes_equal",
        "top1_agreement",
        "size",
    }
    for text in (report / "report.md", report / "report.html"):
        assert "at most 0.1 × that of model" in text.read_text()
    evidence = json.loads((report / "report.json").read_text())["evidence"]
    assert [one["name"] for one in evidence["tasks"]] == ["data", "again"]
    exports = [one for one in evidence["contrasts"] if one["why"] == "source"]
    assert {one["model"] for one in exports} == {"model-onnx", "ptq-onnx"}
    assert all(one["within"] and one["difference"] is not None for one in exports)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "artifacts/steps").iterdir()}

    passed = run(hub, tmp_path, "0.9")
    assert passed.returncode == 0, passed.stderr
    assert "gates pass" in passed.stdout
    assert "running" not in passed.stdout.replace("push                     running", "")
    assert hub.repositories[REPO].files
    after = {path: path.stat().st_mtime_ns for path in (tmp_path / "artifacts/steps").iterdir()}
    assert after == before
