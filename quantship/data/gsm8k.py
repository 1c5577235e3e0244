r"""GSM8K: grade-school maths word problems, solved step by step.

A record, one JSON object a line:

    {"question": "Weng earns $12 an hour for babysitting. Yesterday, she just did 50 minutes of
                  babysitting. How much did she earn?",
     "answer": "Weng earns 12/60 = $<<12/60=0.2>>0.2 per minute.\nWorking 50 minutes, she earned
                0.2 x 50 = $<<0.2*50=10>>10.\n#### 10"}

becomes a user turn (the question) and an assistant turn (the answer as it stands, calculator
annotations and the final ``#### 10`` included).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal

from quantship.data import hub
from quantship.data.fields import exchange, filled
from quantship.data.files import json_lines
from quantship.data.source import Example, FileOptions


class Options(FileOptions):
    """GSM8K maths word problems, from a JSON Lines file or from openai/gsm8k on the Hub."""

    hub: ClassVar = "openai/gsm8k"
    adapter: Literal["gsm8k"]


@dataclass(frozen=True)
class Problem:
    """One word problem.

    Args:
        question: As it stands.
        answer: The solution as it stands, ``#### 10`` at its end.
        origin: Where the record came from.
    """

    question: str
    answer: str
    origin: str


def rows(options: Options) -> Iterator[Example]:
    """Yield one question and its answer a record.

    Raises:
        DataError: A record is malformed; names its file and line.
    """
    for one in problems(options):
        yield Example(exchange(one.question, one.answer), one.origin)


def problems(options: Options) -> Iterator[Problem]:
    """Yield every problem.

    Raises:
        DataError: A record is malformed; names its file and line.
    """
    if options.path is not None:
        records = json_lines(options.path)
    else:
        records = hub.records(options.hub, "main", options.revision, options.split)
    for origin, record in records:
        question, answer = filled(record, "question", origin), filled(record, "answer", origin)
        yield Problem(question, answer, origin)
