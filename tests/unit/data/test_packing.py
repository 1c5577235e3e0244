from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from quantship.data.packing import Packed
from quantship.data.templating import IGNORED

ROWS = st.lists(st.lists(st.booleans(), min_size=1, max_size=9), max_size=12)


def rows_of(masks: list[list[bool]]):
    """Sequences of numbers that count up, so that each token can be told from the others."""
    start = 0
    for mask in masks:
        ids = np.arange(start, start + len(mask), dtype=np.int32)
        yield ids, np.where(mask, np.int32(IGNORED), ids)
        start += len(mask)


@given(masks=ROWS, size=st.integers(1, 12))
def test_blocks_are_the_sequences_end_to_end(masks, size):
    ids, labels = (
        np.concatenate([np.empty(0, np.int32), *columns])
        for columns in ([row[part] for row in rows_of(masks)] for part in (0, 1))
    )
    packed = Packed(rows_of(masks), size)
    blocks = list(packed)
    starts = range(0, len(ids), size)
    wanted = [s for s in starts if (labels[s : s + size][1:] != IGNORED).any()]
    assert [block.tolist() for block, _ in blocks] == [ids[s : s + size].tolist() for s in wanted]
    assert [b.tolist() for _, b in blocks] == [labels[s : s + size].tolist() for s in wanted]
    assert packed.left_out == len(ids) - sum(len(block) for block, _ in blocks)


def test_a_block_inside_a_long_prompt_is_left_out_and_counted():
    packed = Packed(rows_of([[True, False], [True] * 5 + [False]]), 4)
    assert [block.tolist() for block, _ in packed] == [[0, 1, 2, 3], [4, 5, 6, 7]]
    packed = Packed(rows_of([[True, False], [True] * 7 + [False]]), 4)
    assert [block.tolist() for block, _ in packed] == [[0, 1, 2, 3], [8, 9]]
    assert packed.left_out == 4
