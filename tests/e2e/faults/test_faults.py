"""Every kind of fault, a few of each; ``nox -s faults`` injects many more."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from faults import table
from faults.frame import Lab
from faults.kinds import KINDS
from faults.runs import Server

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    folder: Path = tmp_path_factory.mktemp("faults")
    with Server(folder) as server:
        yield Lab(folder, server)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.KIND)
def test_nothing_finished_is_lost_and_nothing_wrong_is_reused(kind: ModuleType, lab: Lab) -> None:
    reason = kind.reject()
    if reason is not None:
        pytest.skip(reason)
    faults = list(kind.inject(lab, short=True, seed=0))
    assert faults
    assert not [table.line(fault) for fault in faults if not fault.passed]
