from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import devtools
import pages
import pytest


@pytest.fixture(scope="session")
def chromium() -> Iterator[devtools.Browser]:
    """A browser; skips where there is none."""
    program = devtools.find()
    if program is None:
        pytest.skip(devtools.missing())
    with devtools.browser(program) as browser:
        yield browser


@pytest.fixture(scope="session")
def written(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Pages by name."""
    return pages.write(tmp_path_factory.mktemp("pages"))
