from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from quantship import sealed
from quantship.artifact import MANIFEST, Manifest
from quantship.provenance.bom import BOM, write_bom
from quantship.provenance.bom_parts import licenses
from quantship.provenance.lock_schema import Lock
from quantship.reporting.schema import Report

DIGEST = "ef" * 32


@pytest.fixture
def report() -> Report:
    row = {"step": "", "size_bytes": 8, "path": "p"}
    measured = {"value": 3.5, "low": 3.25, "high": 4.0}
    result = {
        "metrics": {"perplexity": measured},
        "extra": {"loss_p95": 2.5},
        "runtime": "torchao",
        "seconds": 1,
    }
    return Report.model_validate(
        {
            "quantship_version": "1.2",
            "recipe": {},
            "name": "run",
            "created": "2026-01-02T03:04:05Z",
            "duration_s": 1,
            "environment": {
                "cpu_model": "c",
                "instruction_sets": [],
                "num_cpus": 1,
                "memory_bytes": 1,
                "gpu": None,
                "os": "o",
                "python": "3",
                "versions": {},
            },
            "data": {},
            "models": [
                row | {"name": "model", "kind": "float", "group": "baseline"},
                row
                | {
                    "name": "qat",
                    "kind": "torchao",
                    "group": "qat",
                    "scheme": "w8a8",
                    "float_source": "model",
                    "tasks": {"data": result},
                    "warnings": ["slow here"],
                },
                row
                | {
                    "name": "qat-onnx",
                    "kind": "onnx",
                    "group": "qat",
                    "scheme": "w8a8",
                    "float_source": "model",
                    "parity": {
                        "reference": "qat",
                        "codes_equal": True,
                        "tensors_compared": 3,
                        "max_abs_logit_diff": 0,
                        "top1_agreement": 1,
                        "kl_nats": 0,
                    },
                },
            ],
            "training": [],
            "notes": [],
        }
    )


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    model = tmp_path / "models" / "qat"
    model.mkdir(parents=True)
    config = {"model_type": "llama", "architectures": ["LlamaForCausalLM"]}
    (model / "config.json").write_text(json.dumps(config))
    manifest = Manifest(
        stage="qat",
        fingerprint=DIGEST,
        settings={},
        inputs={},
        facts={},
        duration_s=1,
        finished="",
        files={"model.safetensors": DIGEST, "config.json": DIGEST},
    )
    (model / MANIFEST).write_text(sealed.dumps(manifest.model_dump()))
    return tmp_path


@pytest.fixture
def bom(report: Report, lock: Lock, directory: Path) -> Callable[..., dict[str, Any]]:
    def bom(*terms: str) -> dict[str, Any]:
        made: dict[str, Any] = json.loads(write_bom(report, lock, directory, terms).read_text())
        return made

    return bom


def component(bom: dict[str, Any], ref: str) -> dict[str, Any]:
    (found,) = (one for one in bom["components"] if one["bom-ref"] == ref)
    return dict(found)


def test_it_is_valid_for_the_validator_of_cyclonedx(
    bom: Callable[..., dict[str, Any]], directory: Path
) -> None:
    for terms in ((), ("apache-2.0",), ("llama3.2", "mit")):
        made = bom(*terms)
        assert made["specVersion"] == "1.6"
        validator = JsonStrictValidator(SchemaVersion.V1_6)
        assert validator.validate_str((directory / BOM).read_text()) is None


def test_the_same_run_gives_the_same_bytes_and_another_another_serial_number(
    bom: Callable[..., dict[str, Any]], directory: Path
) -> None:
    one = bom("mit")
    first = (directory / BOM).read_bytes()
    bom("mit")
    assert (directory / BOM).read_bytes() == first
    assert bom()["serialNumber"] != one["serialNumber"]


def test_a_model_has_a_card_its_files_and_what_it_comes_from(
    bom: Callable[..., dict[str, Any]],
) -> None:
    qat = component(bom("apache-2.0"), "model:qat")
    assert qat["licenses"] == [{"license": {"id": "Apache-2.0"}}]
    assert [file["name"] for file in qat["components"]] == ["model.safetensors"]
    assert qat["components"][0]["hashes"] == [{"alg": "SHA-256", "content": DIGEST}]
    assert [one["name"] for one in qat["pedigree"]["ancestors"]] == ["me/base"]
    card = qat["modelCard"]
    assert card["modelParameters"] == {
        "task": "text-generation",
        "architectureFamily": "llama",
        "modelArchitecture": "LlamaForCausalLM",
        "datasets": [{"ref": "data.train.0"}],
    }
    ends = {"lowerBound": "3.25", "upperBound": "4.0"}
    assert card["quantitativeAnalysis"]["performanceMetrics"][:2] == [
        {"type": "perplexity", "value": "3.5", "slice": "data", "confidenceInterval": ends},
        {"type": "loss_p95", "value": "2.5", "slice": "data"},
    ]
    assert card["considerations"] == {"technicalLimitations": ["slow here"]}


def test_what_a_model_was_made_from_is_what_it_depends_on(
    bom: Callable[..., dict[str, Any]],
) -> None:
    made = bom()
    wanted = {one["ref"]: one["dependsOn"] for one in made["dependencies"]}
    assert wanted["model:qat"] == ["data.train.0", "outside:model", "outside:teacher ./big"]
    assert "model:qat" in wanted["model:qat-onnx"]
    known = {one["bom-ref"] for one in made["components"]} | {"run"}
    assert {ref for one in made["dependencies"] for ref in (one["ref"], *one["dependsOn"])} <= known


def test_models_and_data_from_the_hub_are_known_by_their_commits(
    bom: Callable[..., dict[str, Any]], lock: Lock
) -> None:
    made = bom("mit")
    base = component(made, "outside:model")
    commit = lock.models["model"].commit
    assert (base["name"], base["version"]) == ("me/base", commit)
    assert base["purl"] == f"pkg:huggingface/me/base@{commit}"
    assert base["licenses"] == [{"license": {"id": "MIT"}}]
    assert "licenses" not in component(made, "outside:teacher ./big")
    data = component(made, "data.eval.0")
    assert (data["type"], data["name"], data["version"]) == ("data", "openai/gsm8k", commit)
    local = component(made, "data.train.0")
    assert local["name"] == "train.jsonl"
    assert local["hashes"] == [{"alg": "SHA-256", "content": lock.data[0].files[0]}]


def test_every_package_is_there_with_its_version_and_its_license(
    bom: Callable[..., dict[str, Any]], lock: Lock
) -> None:
    found = {one["name"]: one for one in bom()["components"] if one["type"] == "library"}
    (here,) = lock.environments.values()
    assert {name: one["version"] for name, one in found.items()} == here.packages
    assert found["safetensors"]["purl"] == f"pkg:pypi/safetensors@{here.packages['safetensors']}"
    assert "+" not in found["torch"]["purl"]
    licensed = [one for one in found.values() if "licenses" in one]
    assert len(licensed) > len(found) * 0.9


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["apache-2.0"], [{"license": {"id": "Apache-2.0"}}]),
        (
            ["mit", "bsd-3-clause"],
            [{"license": {"id": "MIT"}}, {"license": {"id": "BSD-3-Clause"}}],
        ),
        (["llama3.2"], [{"license": {"name": "llama3.2"}}]),
        (["MIT or Apache-2.0"], [{"expression": "MIT OR Apache-2.0"}]),
        (["BSD License"], [{"license": {"name": "BSD License"}}]),
        ([], []),
    ],
)
def test_licenses_have_their_spdx_ids_where_there_are_any(
    names: list[str], expected: list[dict[str, Any]]
) -> None:
    assert licenses(names) == expected
