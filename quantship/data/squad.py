"""SQuAD v1.1: questions that a passage answers in its own words.

The file is one JSON document (only the keys that are read):

    {"data": [{"paragraphs": [{
        "context": "The Panthers defense gave up just 308 points, ranking sixth in the league ...",
        "qas": [{"question": "How many points did the Panthers defense surrender?",
                 "answers": [{"text": "308", "answer_start": 34}]}]}]}]}

and every question becomes a user turn

    The Panthers defense gave up just 308 points, ranking sixth in the league ...

    How many points did the Panthers defense surrender?

and an assistant turn (``308``, the first of its answers).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from quantship.data import hub
from quantship.data.fields import exchange, field, filled, texts
from quantship.data.files import json_document
from quantship.data.source import Example, FileOptions
from quantship.errors import DataError


class Options(FileOptions):
    """Questions on passages, from a file in SQuAD's v1.1 layout or from rajpurkar/squad."""

    hub: ClassVar = "rajpurkar/squad"
    adapter: Literal["squad"]


@dataclass(frozen=True)
class Asked:
    """One question on a passage.

    Args:
        context: The passage.
        question: As it stands.
        answers: Every answer that counts as right, at least one; they may be equal.
        origin: Where the record came from.
    """

    context: str
    question: str
    answers: tuple[str, ...]
    origin: str

    @property
    def prompt(self) -> str:
        """Passage and question, as a user gives them."""
        return f"{self.context}\n\n{self.question}"


def rows(options: Options) -> Iterator[Example]:
    """Yield one passage with its question, and the answer, a question.

    Raises:
        DataError: A record is malformed; names the file and the place in the document.
    """
    for one in asked(options):
        yield Example(exchange(one.prompt, one.answers[0]), one.origin)


def asked(options: Options) -> Iterator[Asked]:
    """Yield every question with all its answers.

    Raises:
        DataError: A record is malformed; names the file and the place in the document.
    """
    if options.path is not None:
        yield from _from_file(options.path)
        return
    for origin, record in hub.records(options.hub, None, options.revision, options.split):
        answers = field(field(record, "answers", dict, origin), "text", list, origin)
        context = filled(record, "context", origin)
        question = filled(record, "question", origin)
        yield _asked(context, question, texts(answers, origin, "answers"), origin)


def _from_file(path: Path) -> Iterator[Asked]:
    articles = field(json_document(path), "data", list, str(path))
    for i, article in enumerate(articles):
        place = f"{path}: data[{i}]"
        for j, paragraph in enumerate(field(article, "paragraphs", list, place)):
            passage = f"{place}.paragraphs[{j}]"
            context = filled(paragraph, "context", passage)
            for k, entry in enumerate(field(paragraph, "qas", list, passage)):
                origin = f"{passage}.qas[{k}]"
                answers = [
                    field(answer, "text", str, f"{origin}.answers[{n}]")
                    for n, answer in enumerate(field(entry, "answers", list, origin))
                ]
                question = filled(entry, "question", origin)
                yield _asked(context, question, answers, origin)


def _asked(context: str, question: str, answers: list[str], origin: str) -> Asked:
    if not answers:
        raise DataError("no answer; questions without one belong to SQuAD 2.0", origin)
    return Asked(context, question, tuple(answers), origin)
