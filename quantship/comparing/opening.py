"""Find the reports of runs on disk, and the losses by sequence that lie beside them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from quantship import artifact
from quantship.errors import UsageError
from quantship.reporting.schema import Report
from quantship.tasks.likelihood import Sequences, read_sequences

REPORT = "report.json"
FINGERPRINTS = "artifacts.json"
SCHEMA_VERSION = 1
SLACK = 1e-6
"""Nats by which the losses by sequence may miss the mean loss that the report states."""


@dataclass(frozen=True, eq=False)
class Opened:
    """A run's report, and what else there is of the run.

    Args:
        label: Its name, numbered where several runs have the same.
        path: The report's file.
        report: The report.
        fingerprints: Of its artifacts by name; empty where only the report is at hand.
        sequences: Losses by sequence of its models by name; of those that are at hand.
    """

    label: str
    path: Path
    report: Report
    fingerprints: Mapping[str, str]
    sequences: Mapping[str, Sequences]


def open_runs(paths: Sequence[Path]) -> list[Opened]:
    """Read the runs that these paths stand for, each once, in their order.

    Args:
        paths: Each a run's directory (``artifacts/runs/NAME``), a ``report.json``, or a directory
            of several runs (``artifacts`` or ``artifacts/runs``).

    Raises:
        UsageError: Something is missing or is no report; names everything that is wrong.
    """
    problems: list[str] = []
    found: dict[Path, Report] = {}
    for path in paths:
        try:
            for file in _reports(path):
                found.setdefault(file.resolve(), _read(file))
        except UsageError as error:
            problems.append(str(error))
    if problems:
        raise UsageError("\n".join(problems))
    return [
        _opened(label, path, report)
        for label, (path, report) in zip(_labels(found.values()), found.items(), strict=True)
    ]


def _reports(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    if not path.exists():
        raise UsageError(f"{path}: there is no such file or directory")
    if (path / REPORT).is_file():
        return [path / REPORT]
    several = sorted([*path.glob(f"runs/*/{REPORT}"), *path.glob(f"*/{REPORT}")])
    if not several:
        raise UsageError(
            f"{path}: holds no {REPORT}\n    Give a run's directory (artifacts/runs/NAME), its "
            f"{REPORT}, or a directory of several runs (artifacts)."
        )
    return several


def _read(path: Path) -> Report:
    try:
        content: Any = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}") from error
    except ValueError as error:
        hint = ""
        if path.suffix in (".yaml", ".yml"):
            hint = "\n    It looks like a recipe: run it first, and give its run's directory."
        raise UsageError(f"{path}: is no JSON, so it is no report{hint}") from error
    if not isinstance(content, dict) or not {"quantship_version", "models"} <= set(content):
        raise UsageError(f"{path}: is JSON, but no report of quantship")
    version = content.get("schema_version")
    if version != SCHEMA_VERSION:
        raise UsageError(
            f"{path}: its layout is of version {version}, and this quantship reads version "
            f"{SCHEMA_VERSION}\n    Run its recipe again with this quantship (finished steps are "
            "reused), or compare with the one that made it: "
            f"{content['quantship_version']}."
        )
    try:
        return Report.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise UsageError(
            f"{path}: {error.error_count()} of its values are not those of a report; "
            f"{where}: {first['msg']}"
        ) from error


def _labels(reports: Iterable[Report]) -> Iterator[str]:
    names = [report.name for report in reports]
    often, seen = Counter(names), Counter[str]()
    for name in names:
        seen[name] += 1
        yield name if often[name] == 1 else f"{name}#{seen[name]}"


def _opened(label: str, path: Path, report: Report) -> Opened:
    fingerprints = _fingerprints(path)
    root = path.parent.parent.parent
    sequences = {
        row.name: found
        for row in report.models
        if row.metrics is not None
        and (made := fingerprints.get(f"evaluate {row.name}")) is not None
        and (found := _sequences(root, made, row.metrics.mean_loss)) is not None
    }
    return Opened(label, path, report, fingerprints, sequences)


def _fingerprints(path: Path) -> dict[str, str]:
    try:
        found = json.loads((path.parent / FINGERPRINTS).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if path.name == REPORT and isinstance(found, dict) else {}


def _sequences(root: Path, fingerprint: str, mean_loss: float) -> Sequences | None:
    """The losses by sequence behind a mean loss; None where they are gone or are others."""
    evaluation = artifact.find(root, "evaluate", fingerprint)
    if evaluation is None:
        return None
    found = read_sequences(evaluation.path)
    mean = float(found.nll_nats.sum() / found.num_tokens.sum())
    return found if abs(mean - mean_loss) <= SLACK else None
