from __future__ import annotations

from collections import Counter

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from quantship.data.tally import PERCENTILES, percentiles


@given(lengths=st.lists(st.integers(0, 40), min_size=1, max_size=200))
def test_percentiles_are_those_of_all_lengths(lengths):
    found = percentiles(Counter(lengths))
    assert (found["min"], found["max"]) == (min(lengths), max(lengths))
    for name, percent in PERCENTILES.items():
        # The smallest length that this share of all does not exceed.
        shares = {length: np.mean(np.array(lengths) <= length) for length in set(lengths)}
        enough = [length for length, share in shares.items() if share >= percent / 100 - 1e-12]
        assert found[name] == min(enough)


def test_nothing_has_no_percentiles():
    assert percentiles({}) == {}
