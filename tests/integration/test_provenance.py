"""A run can be checked, and made again from its lock alone."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jsonschema
import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from typer.testing import CliRunner

from quantship import artifact, pipeline, repeating
from quantship import plan as planning
from quantship.artifact import digest_file
from quantship.cli import app
from quantship.errors import RecipeError, UsageError
from quantship.provenance import differences, environment
from quantship.provenance.lock import read_lock
from quantship.recipe import load

if TYPE_CHECKING:
    from conftest import Undisturbed

pytestmark = pytest.mark.usefixtures("one_thread")

FROM_FILES = """\
model: {tiny: {hidden_size: 32, intermediate_size: 48, num_layers: 1, num_heads: 2,
               num_kv_heads: 1, max_positions: 64}}
data:
  train: [{adapter: chat, path: train.jsonl}]
  eval: [{adapter: chat, path: eval.jsonl}]
  max_length: 64
steps:
  - {stage: quantize, name: ptq, scheme: w8a8}
benchmark: null
"""


@pytest.fixture
def run_dir(undisturbed: Undisturbed) -> Path:
    return undisturbed.result.report_dir


@pytest.fixture
def from_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a recipe whose data is in files beside it, run once into ``one``."""
    monkeypatch.chdir(tmp_path)
    for name, words in (("train", ("goat", "stone")), ("eval", ("river", "cloud"))):
        lines = [
            {"messages": [{"role": "user", "content": w}, {"role": "assistant", "content": w}]}
            for w in words
        ]
        Path(f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    Path("small.yaml").write_text(FROM_FILES)
    pipeline.run(load(Path("small.yaml")), Path("one"))
    return tmp_path


def test_every_artifact_has_a_lock_of_its_own(undisturbed: Undisturbed) -> None:
    here = environment.current()
    for name, made in undisturbed.result.artifacts.items():
        lock = read_lock(made.path)
        ((locked, what),) = lock.artifacts.items()
        assert (locked, what.stage, what.fingerprint) == (name, made.stage, made.fingerprint)
        assert lock.seed == 0
        assert lock.recipe == load(undisturbed.recipe).model_dump(mode="json")
        (where,) = lock.environments.values()
        assert where.packages == here.packages
        assert where.checkout == here.checkout


def test_the_lock_of_a_run_holds_those_of_its_artifacts_and_keeps_to_its_schema(
    undisturbed: Undisturbed, run_dir: Path
) -> None:
    lock = read_lock(run_dir)
    assert list(lock.artifacts) == list(undisturbed.result.artifacts)
    for name, made in undisturbed.result.artifacts.items():
        assert lock.artifacts[name] == read_lock(made.path).artifacts[name]
    assert lock.artifacts["evaluate qat"].results["perplexity"] > 1
    assert "model.safetensors" in lock.artifacts["qat"].files
    schema = json.loads((run_dir / "lock.schema.json").read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(json.loads((run_dir / "lock.json").read_text()), schema)


def test_a_lock_tells_no_paths_of_this_machine(undisturbed: Undisturbed, run_dir: Path) -> None:
    for file in (run_dir / "lock.json", run_dir / "bom.cdx.json"):
        text = file.read_text()
        assert str(undisturbed.root.parent) not in text
        assert str(Path.home()) + "/" not in text


@pytest.mark.skipif(shutil.which("sha256sum") is None, reason="no sha256sum on this machine")
def test_sums_are_those_of_every_file_of_the_run_and_its_models(run_dir: Path) -> None:
    command = ["sha256sum", "--check", "--strict", "SHA256SUMS"]
    done = subprocess.run(command, cwd=run_dir, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    told = {line.rpartition(": ")[0] for line in done.stdout.splitlines()}
    assert {"report.json", "lock.json", "bom.cdx.json", "models/qat/model.safetensors"} <= told


def test_the_bill_of_materials_is_valid_and_names_every_model(
    undisturbed: Undisturbed, run_dir: Path
) -> None:
    text = (run_dir / "bom.cdx.json").read_text()
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    parts: list[dict[str, Any]] = json.loads(text)["components"]
    models = {part["name"]: part for part in parts if part["type"] == "machine-learning-model"}
    assert list(models) == [row.name for row in undisturbed.result.report.models]
    (file,) = (one for one in models["qat"]["components"] if one["name"] == "model.safetensors")
    path = run_dir / "models" / "qat" / "model.safetensors"
    assert file["hashes"] == [{"alg": "SHA-256", "content": digest_file(path)}]


def test_a_run_that_only_reuses_leaves_what_was_there_to_the_byte(from_files: Path) -> None:
    run_dir = from_files / "one" / "runs" / "small"
    names = ("lock.json", "bom.cdx.json", "SHA256SUMS")
    before = [(run_dir / name).read_bytes() for name in names]
    pipeline.run(load(Path("small.yaml")), Path("one"))
    assert [(run_dir / name).read_bytes() for name in names] == before


def test_a_locked_run_makes_the_same_from_the_lock_alone(from_files: Path) -> None:
    lock = from_files / "elsewhere.json"
    shutil.copy(from_files / "one" / "runs" / "small" / "lock.json", lock)
    (from_files / "small.yaml").unlink()
    asked = repeating.begin(lock)
    assert asked.found == ()
    asked.require_inputs()
    result = pipeline.run(asked.recipe, from_files / "two")
    outcome = repeating.outcome(asked, result)
    assert [one.name for one in outcome] == list(result.artifacts)
    assert all(one.is_equal for one in outcome)
    ours = differences.after(read_lock(lock), read_lock(result.report_dir))
    assert ours == outcome


def test_changed_data_is_refused_unless_it_is_asked_for(from_files: Path) -> None:
    lock = from_files / "one" / "runs" / "small" / "lock.json"
    data = Path("eval.jsonl")
    data.write_text(data.read_text().replace("river", "shore"))
    asked = repeating.begin(lock)
    assert [(one.kind, one.name) for one in asked.found] == [("data", "data.eval.0")]
    with pytest.raises(UsageError, match=r"(?s)data\.eval\.0: content .*--allow-changed"):
        asked.require_inputs()
    runner = CliRunner()
    arguments = ["run", "--locked", str(lock), "--artifacts", "two"]
    refused = runner.invoke(app, arguments)
    assert refused.exit_code == 2
    assert not Path("two").exists()
    done = runner.invoke(app, [*arguments, "--allow-changed"])
    assert done.exit_code == 0, done.output
    assert "Not as the lock says" in done.output
    assert "evaluate ptq" in done.output.rpartition("are the lock's")[2]


def test_the_terminal_says_what_differs_before_and_whether_all_is_equal_after(
    from_files: Path,
) -> None:
    path = from_files / "one" / "runs" / "small" / "lock.json"
    lock = read_lock(path)
    others = {
        key: where.model_copy(update={"packages": where.packages | {"numpy": "0.1"}})
        for key, where in lock.environments.items()
    }
    path.write_text(lock.model_copy(update={"environments": others}).model_dump_json())
    done = CliRunner().invoke(app, ["run", "--locked", str(path), "--artifacts", "two"])
    assert done.exit_code == 0, done.output
    before, _, after = done.output.partition("✓ model")
    assert "Not as the lock says" in before
    assert "numpy" in before
    assert "Models: all 2 are the lock's" in after
    assert "Data and results: all 3 are the lock's" in after
    assert "were not repeated" not in after
    again = CliRunner().invoke(app, ["run", "--locked", str(path), "--artifacts", "two"])
    assert "5 of 5 jobs were not repeated" in again.output


def test_data_may_lie_elsewhere(from_files: Path) -> None:
    lock = from_files / "one" / "runs" / "small" / "lock.json"
    Path("eval.jsonl").rename("moved.jsonl")
    with pytest.raises(RecipeError, match=r"lock\.json:\d+: data\.eval\.0\.path: no such file"):
        repeating.begin(lock)
    asked = repeating.begin(lock, ["data.eval.0.path=moved.jsonl"])
    assert asked.found == ()


def test_a_locked_run_of_one_artifact_repeats_its_recipe(from_files: Path) -> None:
    steps = from_files / "one" / "steps"
    (made,) = (path for path in steps.iterdir() if path.name.startswith("quantize-"))
    asked = repeating.begin(made)
    result = pipeline.run(asked.recipe, from_files / "two")
    assert [(one.name, one.is_equal) for one in repeating.outcome(asked, result)] == [("ptq", True)]


def test_a_lock_is_no_part_of_a_fingerprint_but_of_what_is_verified(from_files: Path) -> None:
    jobs = planning.make(load(Path("small.yaml")), download=False)
    for node in jobs.nodes:
        found = artifact.find(Path("one"), node.stage, node.fingerprint)
        assert found is not None
        lock = found.path / "lock.json"
        lock.write_text(lock.read_text().replace(node.fingerprint, "0" * 64))
        assert artifact.find(Path("one"), node.stage, node.fingerprint) is None


@pytest.mark.parametrize(
    "arguments",
    [
        ["run"],
        ["run", "quickstart", "--locked", "lock.json"],
        ["run", "--locked", "lock.json", "--profile", "smoke"],
        ["run", "--locked", "none.json"],
    ],
)
def test_what_makes_no_sense_is_refused(arguments: list[str]) -> None:
    assert CliRunner().invoke(app, arguments).exit_code == 2
