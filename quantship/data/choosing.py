"""What tasks answered with one of a few words have in common: classes, questions and chats."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from quantship.data.fields import exchange
from quantship.data.source import Example, Labelled, Question
from quantship.errors import DataError


@dataclass(frozen=True)
class Classes:
    """The classes of a task.

    Args:
        names: In the order of their numbers, as the data set's page on the Hub lists them.
        answers: How a class is said, by class, in an answer to the task's prompt.
    """

    names: tuple[str, ...]
    answers: tuple[str, ...]

    def labelled(self, texts: tuple[str, ...], label: object, origin: str) -> Labelled:
        """The record for a classifier; DataError where the label is none of the classes."""
        return Labelled(texts, self.number(label, origin), origin)

    def question(self, prompt: str, label: object, origin: str) -> Question:
        """The record for a language model; DataError where the label is none of the classes."""
        choices = tuple(f" {answer}" for answer in self.answers)
        return Question(prompt, choices, self.number(label, origin), origin)

    def number(self, label: object, origin: str) -> int:
        """The class that a label stands for, written as a number, as true or false, or by name.

        Raises:
            DataError: It stands for none.
        """
        names = [name.lower() for name in self.names]
        known = ", ".join(f"{number} ({name})" for number, name in enumerate(self.names))
        value = label
        if isinstance(value, str):
            word = value.strip().lower()
            if word in names:
                return names.index(word)
            value = int(word) if word.removeprefix("-").isdecimal() and len(word) < 5 else None
        if value == -1:
            raise DataError(
                "the label is -1, which stands for one that is kept secret, as in the official "
                "test split; use another split, as validation",
                origin,
            )
        if not isinstance(value, int) or not 0 <= value < len(names):
            raise DataError(f"{label!r} is no label; known are {known}", origin)
        return int(value)


def chat(question: Question) -> Example:
    """A question and its right answer as a chat."""
    answer = question.choices[question.answer].strip()
    return Example(exchange(question.prompt, answer), question.origin)


def first(record: object, names: tuple[str, ...], origin: str) -> Any:
    """The value in the first of these columns that the record has.

    Raises:
        DataError: It has none of them.
    """
    if not isinstance(record, dict):
        raise DataError(f"must be an object, not {type(record).__name__}", origin)
    for name in names:
        if name in record:
            return record[name]
    wanted = " or ".join(f"'{name}'" for name in names)
    raise DataError(f"no {wanted}; it has {', '.join(map(repr, record)) or 'nothing'}", origin)


def text(record: object, names: tuple[str, ...], origin: str) -> str:
    """The text in the first of these columns that the record has, without white space around it.

    Raises:
        DataError: It has none of them, or there is no text in it.
    """
    value = first(record, names, origin)
    if not isinstance(value, str) or not value.strip():
        raise DataError(f"'{names[0]}' must be text with something in it", origin)
    return value.strip()
