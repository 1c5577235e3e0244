from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from quantship.data.spool import Spool
from quantship.data.templating import IGNORED

IDS = st.integers(0, 2**31 - 1)
SEQUENCES = st.lists(st.lists(st.tuples(IDS, st.booleans()), min_size=1, max_size=9), max_size=20)
SHARED_TMP = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@SHARED_TMP
@given(sequences=SEQUENCES, seed=st.none() | st.integers(0, 3))
def test_sequences_come_back_as_they_went_in(tmp_path, sequences, seed):
    written = [
        ([token for token, _ in one], [IGNORED if masked else token for token, masked in one])
        for one in sequences
    ]
    with Spool(tmp_path / "tokens") as spool:
        for ids, labels in written:
            spool.add(ids, labels)
        found = [(ids.tolist(), labels.tolist()) for ids, labels in spool.rows(seed)]
    if seed is not None:
        order = np.random.default_rng(seed).permutation(len(written))
        written = [written[index] for index in order]
    assert found == written


def test_the_file_is_gone_afterwards_whatever_happens(tmp_path):
    def fill():
        with Spool(tmp_path / "tokens") as spool:
            spool.add([1], [1])
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fill()
    assert list(tmp_path.iterdir()) == []
