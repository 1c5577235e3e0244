r"""MBPP: short Python functions written from one sentence and three asserts.

A record, one JSON object a line (only the keys that are read):

    {"task_id": 2,
     "text": "Write a function to find the similar elements from the given two tuple lists.",
     "test_setup_code": "",
     "test_list": ["assert similar_elements((3, 4, 5, 6),(5, 7, 4, 10)) == (4, 5)", ...],
     "code": "def similar_elements(test_tup1, test_tup2):\r\n  res = ..."}

becomes a user turn

    Write a function to find the similar elements from the given two tuple lists.
    Your code should pass these tests:

    assert similar_elements((3, 4, 5, 6),(5, 7, 4, 10)) == (4, 5)
    ...

and an assistant turn (the code, its lines ended by a plain newline).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal

from quantship.data import hub
from quantship.data.fields import exchange, field, filled, texts
from quantship.data.files import json_lines
from quantship.data.source import Example, FileOptions
from quantship.errors import DataError

TASK_IDS = {
    "prompt": range(1, 11),
    "test": range(11, 511),
    "validation": range(511, 601),
    "train": range(601, 975),
}


class Options(FileOptions):
    """MBPP Python problems, from a JSON Lines file or from google-research-datasets/mbpp."""

    hub: ClassVar = "google-research-datasets/mbpp"
    adapter: Literal["mbpp"]
    split: Literal["train", "validation", "test", "prompt"] = "train"
    """Tasks to read, by their ids as upstream assigns them; a local file holds all of them."""


@dataclass(frozen=True)
class Problem:
    """One function to write. Lines end in a plain newline.

    Args:
        text: What it should do, in a sentence.
        setup: Code that its tests need; mostly empty.
        tests: Asserts.
        code: A solution.
        origin: Where the record came from.
    """

    text: str
    setup: str
    tests: tuple[str, ...]
    code: str
    origin: str

    @property
    def prompt(self) -> str:
        """The task and its tests, as a user gives them."""
        checks = "\n".join([self.setup, *self.tests] if self.setup.strip() else self.tests)
        return f"{self.text}\nYour code should pass these tests:\n\n{checks}"


def rows(options: Options) -> Iterator[Example]:
    """Yield one task and its solution a record of the split.

    Raises:
        DataError: A record, of whichever split, is malformed; names its file and line.
    """
    for one in problems(options):
        yield Example(exchange(one.prompt, one.code), one.origin)


def problems(options: Options) -> Iterator[Problem]:
    """Yield every problem of the split.

    Raises:
        DataError: A record, of whichever split, is malformed; names its file and line.
    """
    if options.path is not None:
        records = json_lines(options.path)
    else:
        records = hub.records(options.hub, "full", options.revision, options.split)
    for origin, record in records:
        task_id = field(record, "task_id", int, origin)
        if not 1 <= task_id <= TASK_IDS["train"][-1]:
            raise DataError(f"task_id {task_id} is not one of MBPP's 1 to 974", origin)
        problem = _problem(record, origin)
        if task_id in TASK_IDS[options.split]:
            yield problem


def _problem(record: object, origin: str) -> Problem:
    tests = texts(field(record, "test_list", list, origin), origin, "test_list")
    if not tests:
        raise DataError("'test_list' is empty", origin)
    return Problem(
        text=_plain_newlines(filled(record, "text", origin)),
        setup=_plain_newlines(field(record, "test_setup_code", str, origin)),
        tests=tuple(map(_plain_newlines, tests)),
        code=_plain_newlines(filled(record, "code", origin)),
        origin=origin,
    )


def _plain_newlines(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n")
