from __future__ import annotations

import os
import sys
from datetime import timedelta
from pathlib import Path

import pytest

from quantship.provenance.lock import LOCK, _settled
from quantship.provenance.lock_schema import Lock


def test_a_lock_that_says_nothing_new_keeps_its_time(lock: Lock, tmp_path: Path) -> None:
    (tmp_path / LOCK).write_text(lock.model_dump_json())
    later = lock.model_copy(update={"created": lock.created + timedelta(hours=1)})
    assert _settled(later, tmp_path) == lock


@pytest.mark.skipif(sys.platform == "win32", reason="there are no such pipes")
def test_a_pipe_is_not_waited_for(lock: Lock, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / LOCK)
    assert _settled(lock, tmp_path) == lock
