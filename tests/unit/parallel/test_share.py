from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quantship.errors import QuantshipError
from quantship.parallel.share import Share, share

sizes = st.integers(1, 12)


@st.composite
def shares(draw: st.DrawFn) -> tuple[int, int, Share]:
    batch_size, accumulation = draw(sizes), draw(sizes)
    step = batch_size * accumulation
    processes = draw(st.sampled_from([one for one in range(1, step + 1) if step % one == 0]))
    return batch_size, accumulation, share(batch_size, accumulation, processes)


@given(shares())
def test_a_step_is_the_same_for_every_number_of_processes(case: tuple[int, int, Share]) -> None:
    batch_size, accumulation, shared = case
    assert shared.step == batch_size * accumulation
    assert shared.own * shared.processes == shared.step


@given(sizes, sizes, st.integers(1, 40))
def test_a_step_that_can_be_dealt_out_is(batch_size: int, accumulation: int, number: int) -> None:
    if batch_size * accumulation % number:
        with pytest.raises(QuantshipError, match=f"multiple of {number}"):
            share(batch_size, accumulation, number)
    else:
        assert share(batch_size, accumulation, number).processes == number


@given(shares())
def test_micro_batches_stay_as_they_are_while_there_are_enough(
    case: tuple[int, int, Share],
) -> None:
    """A smaller micro-batch is slower, and some schemes round it otherwise."""
    batch_size, accumulation, shared = case
    if accumulation % shared.processes == 0:
        assert (shared.batch_size, shared.accumulation) == (
            batch_size,
            accumulation // shared.processes,
        )
    assert batch_size % shared.batch_size == 0


@given(shares(), st.integers(1, 60))
def test_every_sequence_has_one_place_and_every_process_as_many(
    case: tuple[int, int, Share], num_sequences: int
) -> None:
    _, _, shared = case
    dealt = [shared.micro_batches(index, num_sequences) for index in range(shared.processes)]
    steps = shared.num_steps(num_sequences)
    assert {len(batches) for batches in dealt} == {steps * shared.accumulation}
    for step in range(steps):
        own = slice(step * shared.accumulation, (step + 1) * shared.accumulation)
        places = [place for batches in dealt for batch in batches[own] for place in batch]
        assert places == list(range(step * shared.step, (step + 1) * shared.step))
    assert (steps - 1) * shared.step < num_sequences <= steps * shared.step


@given(shares(), st.integers(1, 60))
def test_a_micro_batch_is_a_part_of_one_that_a_process_alone_makes(
    case: tuple[int, int, Share], num_sequences: int
) -> None:
    batch_size, _, shared = case
    for index in range(shared.processes):
        for batch in shared.micro_batches(index, num_sequences):
            assert batch[0] // batch_size == batch[-1] // batch_size
