"""A bill of materials of a run, as CycloneDX: its models, and all that went into them.

CycloneDX 1.6 (ECMA-424), https://cyclonedx.org/docs/1.6/json/. cyclonedx-python-lib has no model
cards yet, so the JSON is written here; its validator is what tests hold it against.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from uuid import NAMESPACE_URL, uuid5

from quantship.provenance import bom_models, bom_parts
from quantship.provenance.bom_parts import Part
from quantship.provenance.lock_schema import Lock
from quantship.reporting.schema import Report
from quantship.reporting.write import replace

BOM = "bom.cdx.json"
SPEC = "1.6"
RUN = "run"


def write_bom(report: Report, lock: Lock, directory: Path, licenses: tuple[str, ...] = ()) -> Path:
    """Write ``bom.cdx.json`` into a run's directory.

    The same report and lock give the same file to the byte.

    Args:
        report: The run's report.
        lock: The run's lock.
        directory: The run's, with links to its models.
        licenses: Of the model that the run starts from, as its card names them; models that are
            made from it inherit them.

    Returns:
        The file.
    """
    path = directory / BOM
    whole = json.dumps(_bom(report, lock, directory, licenses), indent=2, ensure_ascii=False)
    replace(path, whole + "\n")
    return path


def _bom(report: Report, lock: Lock, directory: Path, terms: tuple[str, ...]) -> Part:
    packages = bom_parts.packages(lock)
    made = [
        bom_models.made(row, report, lock, directory / "models" / row.name, terms)
        for row in report.models
        if row.name not in lock.models
    ]
    given = [
        bom_models.outside(name, model, () if name.startswith("teacher ") else terms)
        for name, model in lock.models.items()
    ]
    data = bom_parts.data_sets(lock)
    content: dict[str, Any] = {
        "$schema": f"http://cyclonedx.org/schema/bom-{SPEC}.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": SPEC,
        "version": 1,
        "metadata": {
            "timestamp": report.created.isoformat(),
            "lifecycles": [{"phase": "build"}],
            "tools": {
                "components": [
                    {
                        "type": "application",
                        "name": "quantship",
                        "version": report.quantship_version,
                    }
                ]
            },
            "component": {"type": "application", "bom-ref": RUN, "name": report.name},
        },
        "components": [*made, *given, *data, *packages],
        "dependencies": _dependencies(report, lock, made, data, packages),
    }
    text = json.dumps(content, sort_keys=True)
    return {**content, "serialNumber": f"urn:uuid:{uuid5(NAMESPACE_URL, text)}"}


def _dependencies(
    report: Report, lock: Lock, made: list[Part], data: list[Part], packages: list[Part]
) -> list[Part]:
    whole = [part["bom-ref"] for part in (*made, *data, *packages)]
    found = [{"ref": RUN, "dependsOn": whole}]
    names = {part["bom-ref"] for part in made}
    for row in report.models:
        if bom_models.ref(row.name) in names:
            wanted = bom_models.depends_on(row, report, lock)
            found.append({"ref": bom_models.ref(row.name), "dependsOn": _known(wanted, lock)})
    return found


def _known(refs: list[str], lock: Lock) -> list[str]:
    """References with those to a model that the run did not make put right."""
    given = {bom_models.ref(name): f"outside:{name}" for name in lock.models}
    return sorted({given.get(one, one) for one in refs})
