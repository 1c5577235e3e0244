"""A finished run as it lies on disk: its report, its models, the model that they come from."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from quantship.artifact import MANIFEST, verified
from quantship.errors import GateError, UsageError
from quantship.quant.scheme import Scheme
from quantship.recipe.language import MODEL, Push
from quantship.recipe.model_options import Model
from quantship.reporting.schema import ModelRow, Report

REPORT = "report.json"


@dataclass(frozen=True)
class Finished:
    """A run that has ended.

    Args:
        directory: ``runs/<recipe>``.
        report: What is in its report.json.
    """

    directory: Path
    report: Report

    @property
    def model(self) -> Model:
        """The model that the recipe started from."""
        return Model.model_validate(self.report.recipe["model"])

    @property
    def push(self) -> Push | None:
        """What the recipe says of uploading."""
        asked = self.report.recipe.get("push")
        return None if asked is None else Push.model_validate(asked)

    def row(self, name: str) -> ModelRow:
        """What the report says of a model.

        Raises:
            UsageError: There is no such model.
        """
        found = {row.name: row for row in self.report.models}
        if name not in found:
            raise UsageError(f"no model of {self.directory} is called '{name}': {', '.join(found)}")
        return found[name]

    def path(self, name: str) -> Path:
        """The directory of a model.

        Raises:
            UsageError: It is not there any more, or not what it was when it was finished.
        """
        path = self.directory / "models" / name
        if not path.is_dir():  # one from outside has no link
            path = Path(self.row(name).path)
        if not path.is_dir():
            raise UsageError(f"model '{name}' of {self.directory} is not there any more")
        if (path / MANIFEST).is_file() and verified(path) is None:
            raise UsageError(
                f"model '{name}' of {self.directory} is damaged: its files are not those that "
                f"{MANIFEST} lists\n    Run its recipe again: it is made again, and what is intact "
                "is reused."
            )
        return path.resolve()

    def base_directory(self) -> Path | None:
        """Directory that the recipe started from; None: it made its own model, or it is gone."""
        start = self.model
        if start.path is None and start.hub is None:
            return None
        if start.path is not None and start.path.is_dir():
            return start.path
        place = Path(self.row(MODEL).path)  # the same, as an absolute path, or a snapshot
        if place.is_dir() and not (place / MANIFEST).is_file():
            return place
        return _snapshot(start)


def _snapshot(start: Model) -> Path | None:
    """A Hub model in huggingface_hub's cache; None where it is not there."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    if start.hub is None:
        return None
    try:
        return Path(snapshot_download(start.hub, revision=start.revision, local_files_only=True))
    except LocalEntryNotFoundError:
        return None


def open_run(directory: Path) -> Finished:
    """Read a run's directory.

    Raises:
        UsageError: It holds no finished run.
    """
    file = directory / REPORT
    if not file.is_file():
        raise UsageError(f"{directory} holds no finished run: there is no {REPORT} in it")
    try:
        return Finished(directory, Report.model_validate_json(file.read_bytes()))
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        raise UsageError(
            f"{file} cannot be read ({key}: {first['msg']}); run its recipe again, what is there "
            "is reused"
        ) from error


def require_gates(report: Report) -> None:
    """Refuse a run of which a gate failed.

    Raises:
        GateError: With every gate that does not hold.
    """
    failed = [gate for gate in report.gates if not gate.passed]
    if failed:
        lines = "".join(f"\n    {gate.reason}" for gate in failed)
        raise GateError(f"{report.name}: nothing is pushed, for a gate failed:{lines}")


def settings(path: Path) -> Mapping[str, Any]:
    """What the job that made a model's directory was asked; empty where that is not recorded."""
    file = path / MANIFEST
    if not file.is_file():
        return {}
    found: dict[str, Any] = json.loads(file.read_bytes()).get("settings", {})
    return found


def scheme_of(path: Path) -> Scheme | None:
    """The scheme of a model's directory; None: a float model, or not recorded."""
    scheme = settings(path).get("scheme")
    return None if scheme is None else Scheme.model_validate(scheme)
