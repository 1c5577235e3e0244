"""A lock of a run that read a model, a teacher and data from the Hub and from files."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from quantship.provenance import environment
from quantship.provenance.lock_schema import (
    Lock,
    LockedModel,
    LockedSource,
    Made,
    Revision,
)

COMMIT = "0123456789abcdef0123456789abcdef01234567"
DIGEST = "ab" * 32


@pytest.fixture
def lock() -> Lock:
    here = environment.current()
    key = environment.key(here)
    made = {"stage": "qat", "fingerprint": DIGEST, "environment": key}
    return Lock(
        name="run",
        created=datetime(2026, 1, 2, tzinfo=UTC),
        seed=0,
        recipe={"name": "run"},
        revisions=[Revision(kind="model", id="me/base", asked="main", commit=COMMIT)],
        models={
            "model": LockedModel(hub="me/base", path=None, commit=COMMIT, fingerprint=DIGEST),
            "teacher ./big": LockedModel(hub=None, path="big", commit=None, fingerprint=DIGEST),
        },
        data=[
            LockedSource(
                key="data.train.0",
                adapter="gsm8k",
                path="data/train.jsonl",
                hub=None,
                commit=None,
                files=[DIGEST],
            ),
            LockedSource(
                key="data.eval.0",
                adapter="gsm8k",
                path=None,
                hub="openai/gsm8k",
                commit=COMMIT,
                files=[],
            ),
        ],
        environments={key: here},
        artifacts={
            "qat": Made.model_validate(made | {"files": {"a": DIGEST, "b": DIGEST}, "results": {}}),
            "evaluate qat": Made.model_validate(
                made | {"stage": "evaluate", "files": {}, "results": {"perplexity": 3.5}}
            ),
        },
    )
