"""Writing small sources, and reading them the way a recipe does."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter

from quantship.data import Example, Source, rows

Write = Callable[..., Path]
Read = Callable[..., list[Example]]


@pytest.fixture
def write_lines(tmp_path: Path) -> Write:
    """Write values as JSON Lines, bytes and strings as they stand."""

    def write(*lines: object, name: str = "data.jsonl") -> Path:
        path = tmp_path / name
        path.write_bytes(b"\n".join(_line(line) for line in lines) + b"\n")
        return path

    return write


@pytest.fixture(scope="session")
def source() -> Callable[..., Source]:
    """A source, validated as a recipe's would be."""
    adapter: TypeAdapter[Source] = TypeAdapter(Source)

    def make(name: str, **options: Any) -> Source:
        return adapter.validate_python({"adapter": name, **options})

    return make


@pytest.fixture(scope="session")
def read(source: Callable[..., Source]) -> Read:
    """All examples of a source."""

    def read_all(name: str, **options: Any) -> list[Example]:
        return list(rows(source(name, **options)))

    return read_all


@pytest.fixture
def private_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep what ``datasets`` caches inside the test's own folder."""
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


def _line(line: object) -> bytes:
    if isinstance(line, bytes):
        return line
    return (line if isinstance(line, str) else json.dumps(line)).encode()
