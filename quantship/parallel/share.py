"""How the sequences of an optimizer step are shared between processes.

A step is the same for every number of processes: ``batch_size`` x ``gradient_accumulation``
sequences, the same ones in the same order. Of the 8 of batch_size 2 and gradient_accumulation 4,

    1 process      0 1 | 2 3 | 4 5 | 6 7
    2 processes    0 1 | 2 3      and      4 5 | 6 7
    8 processes    0   and   1   and   2   ...
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from quantship.errors import QuantshipError


@dataclass(frozen=True)
class Share:
    """What one of several processes does of an optimizer step.

    Args:
        batch_size: Sequences of one of its micro-batches.
        accumulation: Its micro-batches.
        processes: How many processes make the step together.
    """

    batch_size: int
    accumulation: int
    processes: int

    @property
    def own(self) -> int:
        """Sequences of a process in a step."""
        return self.batch_size * self.accumulation

    @property
    def step(self) -> int:
        """Sequences of a step."""
        return self.own * self.processes

    def num_steps(self, num_sequences: int) -> int:
        """Optimizer steps of an epoch, the last one perhaps with fewer sequences."""
        return -(-num_sequences // self.step)

    def micro_batches(self, index: int, num_sequences: int) -> list[range]:
        """Places in an epoch's order of a process's micro-batches.

        Args:
            index: Of the process.
            num_sequences: Of the epoch. Places from there on are of no sequence: they fill up the
                last step, so that every process has something to compute.
        """
        firsts = (
            step * self.step + index * self.own + batch * self.batch_size
            for step in range(self.num_steps(num_sequences))
            for batch in range(self.accumulation)
        )
        return [range(first, first + self.batch_size) for first in firsts]


def share(batch_size: int, accumulation: int, processes: int) -> Share:
    """Share an optimizer step: its micro-batches as far as possible, then their sequences.

    Args:
        batch_size: Sequences of a micro-batch of one process alone.
        accumulation: Micro-batches of a step of one process alone.
        processes: How many share the step.

    Raises:
        QuantshipError: The sequences of a step cannot be dealt out evenly.
    """
    if batch_size * accumulation % processes:
        raise QuantshipError(
            f"an optimizer step of batch_size {batch_size} x gradient_accumulation {accumulation} "
            f"sequences cannot be dealt out evenly to {processes} processes: choose values whose "
            f"product is a multiple of {processes}, or another number of processes"
        )
    dealt = math.gcd(accumulation, processes)
    return Share(batch_size * dealt // processes, accumulation // dealt, processes)
