"""Where a model says that it comes from, and whether that is so."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from quantship.artifact import MANIFEST
from quantship.quant.checkpoint import WEIGHTS
from quantship.validation.report import Check, FileFacts
from quantship.validation.subjects import Subject, identify

Files = tuple[FileFacts, ...]


def checks(a: Subject, b: Subject, files: tuple[Files, Files]) -> list[Check]:
    """Files against the manifests beside them, and digests in metadata against the files."""
    found = [_manifest(a, files[0]), _manifest(b, files[1])]
    for model, source, weights in ((a, b, files[1]), (b, a, files[0])):
        if model.kind == "onnx" and source.kind == "torchao":
            found.append(_digest(model, source, weights))
    return [check for check in found if check is not None]


def source(subject: Subject) -> Subject | None:
    """The checkpoint that an export of a recipe was made from, where it lies beside it."""
    if subject.kind != "onnx" or not subject.has_codes:
        return None
    fingerprint = _read_manifest(subject.path).get("inputs", {}).get("model")
    if fingerprint is None:
        return None
    beside = sorted(subject.path.resolve().parent.glob(f"*-{fingerprint[:16]}"))
    found = [path for path in beside if (path / WEIGHTS).is_file()]
    return identify("the source", found[0]) if found else None


def _manifest(subject: Subject, files: Files) -> Check | None:
    """Whether files are those that quantship has finished; None: nothing lists them."""
    listed = _read_manifest(subject.path).get("files", {})
    known = [file for file in files if file.name in listed]
    if not known:
        return None
    changed = [
        f"{file.name} has the SHA-256 {file.sha256}, and {MANIFEST} says {listed[file.name]}"
        for file in known
        if listed[file.name] != file.sha256
    ]
    detail = "; ".join(changed) or f"{', '.join(file.name for file in known)} as first written"
    return Check(name=f"manifest of {subject.label}", passed=not changed, detail=detail)


def _digest(model: Subject, origin: Subject, weights: Files) -> Check | None:
    """Whether an ONNX model names the digest of a checkpoint; None: it names none."""
    named = model.described.get("source_sha256")
    actual = next((file.sha256 for file in weights if file.name == WEIGHTS), None)
    if named is None or actual is None:
        return None
    detail = f"{model.label} was made from {origin.label}'s {WEIGHTS}"
    if named != actual:
        detail = (
            f"the metadata of {model.label} name a source with the SHA-256 {named}, and "
            f"{origin.label}'s {WEIGHTS} has {actual}"
        )
    return Check(name="source digest", passed=named == actual, detail=detail)


def _read_manifest(path: Path) -> dict[str, Any]:
    file = path / MANIFEST
    if not file.is_file():
        return {}
    manifest: dict[str, Any] = json.loads(file.read_text())
    return manifest
