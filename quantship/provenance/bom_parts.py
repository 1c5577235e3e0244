"""Parts of a bill of materials that are no models: data sets, packages, licenses."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any
from urllib.parse import quote

from quantship.provenance.lock_schema import Lock, LockedSource

Part = dict[str, Any]
HUB = "https://huggingface.co"
LONGEST_NAME = 64
"""Characters; what is longer in a package's license field is the license's text."""


def sha256_of(digest: str) -> Part:
    """A hash as CycloneDX has it."""
    return {"alg": "SHA-256", "content": digest}


def licenses(names: Iterable[str]) -> list[Part]:
    """Licenses by SPDX id where they have one, else by name."""
    from packaging.licenses import InvalidLicenseExpression, canonicalize_license_expression

    found: list[Part] = []
    for name in names:
        try:
            known = canonicalize_license_expression(name)
        except InvalidLicenseExpression:
            found.append({"license": {"name": name}})
            continue
        is_id = " " not in known and "+" not in known and "LicenseRef" not in known
        if not is_id:
            return [{"expression": known}]  # an expression stands alone
        found.append({"license": {"id": known}})
    return found


def data_sets(lock: Lock) -> list[Part]:
    """The data that was read: a component a source."""
    return [_data_set(source) for source in lock.data]


def packages(lock: Lock) -> list[Part]:
    """Every package that had a part in an artifact: a component a version."""
    found = {
        (name, version)
        for environment in lock.environments.values()
        for name, version in environment.packages.items()
    }
    return [_package(name, version) for name, version in sorted(found)]


def hub_purl(kind: str, name: str, commit: str | None) -> str:
    """Package URL of a repository on the Hub."""
    at = f"@{commit}" if commit else ""
    path = quote(name if kind == "model" else f"datasets/{name}", safe="/")
    return f"pkg:huggingface/{path}{at}"


def _data_set(source: LockedSource) -> Part:
    name = source.hub or (Path(source.path).name if source.path else source.adapter)
    contents: Part = {}
    part: Part = {"type": "data", "bom-ref": source.key, "name": name}
    if source.commit is not None:
        part["version"] = source.commit
    if source.hub is not None:
        url = f"{HUB}/datasets/{source.hub}"
        part["externalReferences"] = [{"type": "distribution", "url": url}]
        contents["contents"] = {"url": url}
    if len(source.files) == 1:
        part["hashes"] = [sha256_of(source.files[0])]
    part["data"] = [
        {
            "type": "dataset",
            "name": name,
            "description": f"{source.key} of the recipe, read as {source.adapter}",
            **contents,
        }
    ]
    part["properties"] = [
        {"name": "quantship:adapter", "value": source.adapter},
        *({"name": "quantship:sha256", "value": one} for one in source.files),
    ]
    return part


def _package(name: str, version: str) -> Part:
    purl = f"pkg:pypi/{name}@{quote(version, safe='')}"
    part: Part = {"type": "library", "bom-ref": purl, "name": name, "version": version}
    terms = _terms(name, version)
    return {**part, **({"licenses": terms} if terms else {}), "purl": purl}


def _terms(name: str, version: str) -> list[Part]:
    """What the installed package says of its license, where it is of this version."""
    try:
        about = metadata.metadata(name)
    except metadata.PackageNotFoundError:
        return []
    if about["Version"] != version:
        return []
    fields: Mapping[str, Any] = about.json
    stated = str(fields.get("license_expression") or "").strip()
    if stated:
        return licenses([stated])
    marks = [str(mark) for mark in fields.get("classifier", ())]
    named = [mark.rpartition(" :: ")[2] for mark in marks if mark.startswith("License :: ")]
    text = str(fields.get("license") or "").strip()
    if text and len(text) <= LONGEST_NAME and "\n" not in text:
        return licenses([text.rpartition(" :: ")[2]])
    return licenses(named)
