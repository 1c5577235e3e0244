"""What ``lock.json`` holds: all that one needs to make a run's artifacts again.

It is in every directory that a job made, and says how that one came to be; the one of a run holds
what is in those of its jobs. ``lock.schema.json`` beside it is made from this file. Add fields
freely; raise ``schema_version`` when one is renamed, removed or changes its meaning.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AwareDatetime, Field, JsonValue

from quantship.reporting.section import Count, Section

Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
"""SHA-256 in hexadecimal."""


class Checkout(Section):
    """The git checkout that quantship ran from."""

    commit: str
    """Its commit."""
    dirty: bool
    """Whether the package's files differ from the commit's."""


class Environment(Section):
    """A machine and its software."""

    quantship: str
    """Version of quantship."""
    checkout: Checkout | None
    """Its git checkout; null: it was installed."""
    python: str
    """Python version."""
    os: str
    """Operating system and its version."""
    cpu_model: str
    """CPU as it names itself."""
    instruction_sets: list[str]
    """CPU extensions that integer kernels are chosen by."""
    num_cpus: Count
    """Logical CPUs that the process could use."""
    memory_bytes: Count
    """Main memory in bytes."""
    gpu: str | None
    """GPU as it names itself; null: none was used."""
    threads: dict[str, str]
    """Threads of PyTorch, and the variables that limit threads."""
    packages: dict[str, str]
    """Versions of the packages that quantship needs, and those need, by distribution name."""


class Revision(Section):
    """A repository on the Hub, and the commit that was read."""

    kind: Literal["model", "dataset"]
    """What it holds."""
    id: str
    """As ``owner/name``."""
    asked: str
    """Branch, tag or commit that the recipe names."""
    commit: str
    """The commit that this was."""


class LockedModel(Section):
    """A model that no job made."""

    hub: str | None
    """Its id on the Hub; null: a directory."""
    path: str | None
    """Its directory, as the recipe names it; null: from the Hub."""
    commit: str | None
    """Its commit on the Hub; null: a directory."""
    fingerprint: Digest
    """Hash of its commit, or of the content of its directory."""


class LockedSource(Section):
    """Data that was read."""

    key: str
    """Where the recipe names it, as ``data.train.0``."""
    adapter: str
    """What read it."""
    path: str | None
    """Local file or folder, as the recipe names it; null: none."""
    hub: str | None
    """Data set on the Hub; null: none."""
    commit: str | None
    """Its commit; null: not from the Hub."""
    files: list[Digest]
    """Digests of the local files, in order."""


class Made(Section):
    """What a job made."""

    stage: str
    """The job's stage."""
    fingerprint: Digest
    """Hash of all that went into it."""
    files: dict[str, Digest]
    """What each file holds, by its path in the directory: of safetensors the tensors by name, of
    ONNX the graph, of other files the bytes. Equal digests are equal results."""
    results: dict[str, float]
    """What it measured, by name; empty: it measures nothing that is the same every time."""
    environment: str | None
    """Key of ``environments``: where it was made; null: not recorded."""


class Lock(Section):
    """How artifacts came to be."""

    schema_version: Literal[1] = 1
    """Version of this layout."""
    name: str
    """Name of the run."""
    created: AwareDatetime
    """When this was written."""
    seed: Count
    """Seed of everything random."""
    recipe: dict[str, JsonValue]
    """The recipe as it ran, with revisions on the Hub replaced by commits: it runs as it stands."""
    revisions: list[Revision]
    """What was read from the Hub."""
    models: dict[str, LockedModel]
    """Models that no job made, by their names in the run."""
    data: list[LockedSource]
    """Data that was read."""
    environments: dict[str, Environment]
    """Where artifacts were made, each by a key of its own."""
    artifacts: dict[str, Made]
    """What jobs made, by the names of the jobs, in order."""


def json_schema() -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of ``lock.json``."""
    schema = Lock.model_json_schema(mode="serialization")
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}
