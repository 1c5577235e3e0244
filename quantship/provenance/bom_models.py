"""Models in a bill of materials: their files, what they were made from, and a model card each."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from quantship.artifact import MANIFEST, read_manifest
from quantship.provenance.bom_parts import HUB, Part, hub_purl, licenses, sha256_of
from quantship.provenance.lock_schema import Lock, LockedModel
from quantship.reporting.schema import ModelRow, Report
from quantship.runtimes.kinds import kind_of

WEIGHTS = (".safetensors", ".onnx", ".onnx_data", ".bin", ".xml")
TASKS = {
    "language": "text-generation",
    "texts": "text-classification",
    "samples": "tabular-classification",
}
TRAINED = ("finetune", "ptq", "qat")
"""What a model is to a run where the training data is in it, or its ranges."""


def ref(name: str) -> str:
    """What a bill of materials calls a model."""
    return f"model:{name}"


def outside(name: str, model: LockedModel, terms: Sequence[str]) -> Part:
    """A model that was not made by the run."""
    part = _named(name, model) | {"bom-ref": f"outside:{name}"}
    if terms:
        part["licenses"] = licenses(terms)
    if model.hub is not None:
        part["externalReferences"] = [{"type": "distribution", "url": f"{HUB}/{model.hub}"}]
    part["properties"] = [{"name": "quantship:fingerprint", "value": model.fingerprint}]
    return part


def made(row: ModelRow, report: Report, lock: Lock, directory: Path, terms: Sequence[str]) -> Part:
    """A model that the run made.

    Args:
        row: What the report says of it.
        report: The run's report.
        lock: The run's lock.
        directory: The model's.
        terms: Licenses that it inherits.
    """
    part: Part = {"type": "machine-learning-model", "bom-ref": ref(row.name), "name": row.name}
    locked = lock.artifacts.get(row.name)
    if locked is not None:
        part["version"] = locked.fingerprint[:16]
    part["description"] = _described(row)
    if terms:
        part["licenses"] = licenses(terms)
    names = [name for name in _ancestors(row, report) if name not in lock.models]
    ancestors = [{"type": "machine-learning-model", "name": name} for name in names]
    ancestors += [_named(name, model) for name, model in lock.models.items() if _starts(name)]
    if ancestors:
        part["pedigree"] = {"ancestors": ancestors}
    files = _files(row.name, directory)
    if files:
        part["components"] = files
    part["modelCard"] = _card(row, lock, directory)
    return part


def depends_on(row: ModelRow, report: Report, lock: Lock) -> list[str]:
    """References to what a model was made from: models, and data."""
    found = [ref(name) for name in _ancestors(row, report)]
    if row.group == "baseline" and row.kind == "float":
        found += [f"outside:{name}" for name in lock.models if _starts(name)]
    if row.group == "qat":
        found += [f"outside:{name}" for name in lock.models if not _starts(name)]
    return sorted({*found, *_data(row, lock)})


def _described(row: ModelRow) -> str:
    kinds = {"float": "Float checkpoint", "torchao": "torchao checkpoint", "onnx": "ONNX model"}
    how = f", quantized to {row.scheme}" if row.scheme else ""
    return f"{kinds.get(row.kind, 'OpenVINO model')}{how}"


def _ancestors(row: ModelRow, report: Report) -> list[str]:
    """Models of the run that this one was made from, the nearest first."""
    names = {other.name for other in report.models}
    found = []
    if row.parity is not None and row.parity.reference in names:
        found.append(row.parity.reference)
    if row.float_source is not None:
        found.append(row.float_source)
    first = next((other.name for other in report.models if other.group == "baseline"), None)
    if first is not None and row.group != "baseline":
        found.append(first)
    return [name for name in dict.fromkeys(found) if name != row.name and name in names]


def _named(name: str, model: LockedModel) -> Part:
    part: Part = {
        "type": "machine-learning-model",
        "name": model.hub or Path(model.path or name).name,
    }
    if model.commit is not None:
        part["version"] = model.commit
    if model.hub is not None:
        part["purl"] = hub_purl("model", model.hub, model.commit)
    return part


def _starts(name: str) -> bool:
    """Whether a run starts from a model that it did not make; the others are teachers."""
    return not name.startswith("teacher ")


def _data(row: ModelRow, lock: Lock) -> list[str]:
    if row.group not in TRAINED:
        return []
    return [source.key for source in lock.data if source.key.startswith("data.train")]


def _files(name: str, directory: Path) -> list[Part]:
    """The weights and graphs of a model, by the digests that its manifest has."""
    if not (directory / MANIFEST).is_file():
        return []
    return [
        {
            "type": "file",
            "bom-ref": f"file:{name}/{path}",
            "name": path,
            "hashes": [sha256_of(digest)],
        }
        for path, digest in sorted(read_manifest(directory).files.items())
        if Path(path).suffix in WEIGHTS
    ]


def _card(row: ModelRow, lock: Lock, directory: Path) -> Part:
    parameters: Part = {}
    config = directory / "config.json"
    if config.is_file():
        said: dict[str, Any] = json.loads(config.read_bytes())
        parameters["task"] = TASKS[kind_of(said)]
        if isinstance(said.get("model_type"), str):
            parameters["architectureFamily"] = said["model_type"]
        named = said.get("architectures") or []
        if named:
            parameters["modelArchitecture"] = str(named[0])
    data = [{"ref": key} for key in _data(row, lock)]
    if data:
        parameters["datasets"] = data
    card: Part = {"modelParameters": parameters}
    measured = _metrics(row)
    if measured:
        card["quantitativeAnalysis"] = {"performanceMetrics": measured}
    limits = [*row.warnings, *([row.inexact] if row.inexact else [])]
    if limits:
        card["considerations"] = {"technicalLimitations": limits}
    return card


def _metrics(row: ModelRow) -> list[Part]:
    found: list[Part] = []
    if row.metrics is not None and "data" not in row.tasks:
        for name in ("perplexity", "token_accuracy"):
            value = getattr(row.metrics, name)
            found.append({"type": name, "value": repr(value), "slice": "data"})
    for task, result in row.tasks.items():
        for name, estimate in result.metrics.items():
            ends = {"lowerBound": repr(estimate.low), "upperBound": repr(estimate.high)}
            found.append(
                {
                    "type": name,
                    "value": repr(estimate.value),
                    "slice": task,
                    "confidenceInterval": ends,
                }
            )
        for name, value in result.extra.items():
            found.append({"type": name, "value": repr(value), "slice": task})
    found.append({"type": "size_bytes", "value": str(row.size_bytes)})
    if row.benchmark is not None:
        speed = row.benchmark.decode_tokens_per_s
        found.append({"type": "decode_tokens_per_s", "value": repr(speed)})
    return found
