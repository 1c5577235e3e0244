"""Writing ``lock.json``, beside every artifact and in every run, and reading it."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from quantship.artifact import Artifact, Facts
from quantship.errors import UsageError
from quantship.job import OUTSIDE, Node, Plan
from quantship.provenance import contents, environment, sources
from quantship.provenance.contents import LOCK
from quantship.provenance.lock_schema import Environment, Lock, Made, json_schema
from quantship.recipe.language import Recipe
from quantship.reporting.write import replace

SCHEMA = "lock.schema.json"
MEASURING = ("evaluate", "task", "online")
"""Stages whose facts hold results that are the same every time."""


def write_made(recipe: Recipe, plan: Plan, node: Node, directory: Path, facts: Facts) -> Path:
    """Write the lock of what a job has just made into its directory.

    Args:
        recipe: What runs.
        plan: Its jobs.
        node: The job.
        directory: All that it wrote.
        facts: What it found out.
    """
    here = environment.current()
    made = _made(node, directory, facts, environment.key(here))
    whole = _lock(recipe, plan, {environment.key(here): here}, {node.name: made})
    return _write(whole, directory)


def write_lock(recipe: Recipe, plan: Plan, made: Mapping[str, Artifact], directory: Path) -> Path:
    """Write the lock of a finished run, and its schema, into its directory.

    What was reused says where it was made, not where this run took place.

    Args:
        recipe: What ran.
        plan: Its jobs.
        made: Finished artifacts by the name of the job.
        directory: The run's.
    """
    environments: dict[str, Environment] = {}
    artifacts: dict[str, Made] = {}
    for node in plan.nodes:
        if node.stage == OUTSIDE:
            continue
        artifact = made[node.name]
        kept = _kept(artifact)
        if kept is None:
            artifacts[node.name] = _made(node, artifact.path, dict(artifact.facts), None)
            continue
        environments |= kept.environments
        (artifacts[node.name],) = kept.artifacts.values()
    schema = json.dumps(json_schema(), indent=2) + "\n"
    replace(directory / SCHEMA, schema)
    return _write(_settled(_lock(recipe, plan, environments, artifacts), directory), directory)


def planned(recipe: Recipe, plan: Plan) -> Lock:
    """The lock of a run that has not begun: what it will read, and no artifacts."""
    return _lock(recipe, plan, {}, {})


def read_lock(path: Path) -> Lock:
    """What a lock.json holds.

    Args:
        path: The file, or a directory that it lies in.

    Raises:
        UsageError: There is none, or it is of another version.
    """
    file = path / LOCK if path.is_dir() else path
    try:
        return Lock.model_validate_json(file.read_bytes())
    except OSError as error:
        raise UsageError(f"{file} cannot be read: {error.strerror}") from error
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        raise UsageError(f"{file} is no lock of this version: {key}: {first['msg']}") from error


def recipe_text(lock: Lock) -> str:
    """The recipe of a lock as YAML, on the very lines that it has in lock.json."""
    lines_above = 1 + list(Lock.model_fields).index("recipe")  # a bracket, and a line a field
    return "\n" * lines_above + _dumped(lock.recipe)


def _lock(
    recipe: Recipe,
    plan: Plan,
    environments: dict[str, Environment],
    artifacts: dict[str, Made],
) -> Lock:
    return Lock(
        name=recipe.name,
        created=datetime.now(UTC),
        seed=recipe.seed,
        recipe=sources.pinned(recipe, plan).model_dump(mode="json"),
        revisions=sources.revisions(recipe, plan),
        models=sources.models(recipe, plan),
        data=sources.data(recipe, plan),
        environments=environments,
        artifacts=artifacts,
    )


def _made(node: Node, directory: Path, facts: Facts, where: str | None) -> Made:
    measured = node.stage in MEASURING
    return Made(
        stage=node.stage,
        fingerprint=node.fingerprint,
        files=contents.digests(directory),
        results=_numbers(facts, ("metrics", "extra")) if measured else {},
        environment=where,
    )


def _numbers(facts: Facts, keys: tuple[str, ...]) -> dict[str, float]:
    """Figures by name; ``artifact.finish`` refuses those that are no numbers."""
    figures = (item for key in keys for item in dict(facts.get(key) or {}).items())
    return {name: float(value) for name, value in figures if math.isfinite(value)}


def _settled(lock: Lock, directory: Path) -> Lock:
    """The lock that lies in a directory, where the new one says nothing else."""
    if not (directory / LOCK).is_file():  # to read a pipe would never end
        return lock
    try:
        before = read_lock(directory)
    except UsageError:
        return lock
    return before if before == lock.model_copy(update={"created": before.created}) else lock


def _kept(artifact: Artifact) -> Lock | None:
    """The lock that lies beside an artifact; None: another version of quantship made it."""
    try:
        return read_lock(artifact.path)
    except UsageError:
        return None


def _write(lock: Lock, directory: Path) -> Path:
    path = directory / LOCK
    replace(path, _dumped(lock.model_dump(mode="json")) + "\n")
    return path


def _dumped(values: Any) -> str:
    return json.dumps(values, indent=2, allow_nan=False, ensure_ascii=False)
