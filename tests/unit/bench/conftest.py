from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def bench_on_path(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The benchmark is a folder of scripts that import each other by name."""
    monkeypatch.syspath_prepend(str(repository / "tests" / "bench"))
