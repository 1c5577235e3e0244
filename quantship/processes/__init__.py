"""The processes that run one recipe together, as ``torchrun`` and ``accelerate launch`` start them.

Every one of them runs the same command, and they do it in step:

    with together():                connect; alone, all of this does nothing
        in_step(work)               all do it, and all fail where one does
        first_does(work)            the first does it, and all have its result
        for turn in turns(count):   each piece is done by one of them
        agreed(x), gathered(x)      the first one's value; everybody's

One that fails or is killed ends them all, with one message and one exit code.
"""

from quantship.processes.connecting import together
from quantship.processes.departures import DepartedError, Departure, cause, ending, follow
from quantship.processes.identity import alone, index, index_here, is_first, number
from quantship.processes.link import current
from quantship.processes.meeting import agreed, first_does, gathered, in_step, meet, turns
from quantship.processes.news import told

__all__ = [
    "DepartedError",
    "Departure",
    "agreed",
    "alone",
    "cause",
    "current",
    "ending",
    "first_does",
    "follow",
    "gathered",
    "in_step",
    "index",
    "index_here",
    "is_first",
    "meet",
    "number",
    "together",
    "told",
    "turns",
]
