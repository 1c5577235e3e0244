from __future__ import annotations

from collections import Counter
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from quantship.previewing.lengths import BINS, bins


@given(lengths=st.lists(st.integers(1, 300), min_size=1), max_length=st.integers(1, 300))
def test_every_sequence_is_in_one_bin(lengths, max_length):
    found = bins(Counter(lengths), max_length)
    assert len(found) <= BINS + 1
    for one in found:
        last = one.last if one.last is not None else max(lengths)
        assert one.sequences == sum(one.first <= length <= last for length in lengths)
        assert one.used == (last <= max_length)
    assert sum(one.sequences for one in found) == len(lengths)
    edges = [(one.first, one.last) for one in found if one.used]
    assert all(before[1] + 1 == after[0] for before, after in pairwise(edges))


def test_nothing_has_no_bins():
    assert bins({}, 8) == ()
