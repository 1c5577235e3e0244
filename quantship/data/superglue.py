"""SuperGLUE: harder questions on passages, pairs of sentences, causes and words.

A record of ``task: boolq`` and one of ``task: copa``, one JSON object a line:

    {"question": "is barq's root beer a pepsi product",
     "passage": "Barq's root beer -- Barq's is an American soft drink ...", "label": false}
    {"premise": "The man turned on the faucet.", "choice1": "The toilet filled with water.",
     "choice2": "Water flowed from the spout.", "question": "effect", "label": 1}

as in the official archives; CSV and Parquet files with the columns of the Hub's copy are read as
well. As a chat, a record is a question and its answer:

    Barq's root beer -- Barq's is an American soft drink ...
    Question: is barq's root beer a pepsi product?
    Answer:

is a user turn, and ``no`` the assistant's. ``copa`` is a choice between two texts of its own, and
has no classes. ``record``, whose answers are found in a passage, is left out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from quantship.data import choosing, hub, tabular
from quantship.data.choosing import Classes
from quantship.data.fields import field
from quantship.data.source import Example, FileOptions, Labelled, Question
from quantship.errors import DataError

TaskName = Literal["boolq", "cb", "copa", "multirc", "rte", "wic", "wsc"]
Record = Mapping[str, Any]
_YES_NO = Classes(("False", "True"), ("no", "yes"))


@dataclass(frozen=True)
class _Task:
    texts: Callable[[Record, str], tuple[str, ...]]
    """A record and its origin -> what a classifier reads."""
    prompt: Callable[[Record, str], str]
    classes: Classes


class Options(FileOptions):
    """A task of SuperGLUE, from a file (.jsonl, .csv, .parquet) or from aps/super_glue."""

    hub: ClassVar = "aps/super_glue"
    adapter: Literal["superglue"]
    task: TaskName
    """Task of SuperGLUE; record, which is not a choice, is left out."""


def class_names(options: Options) -> tuple[str, ...]:
    """The task's classes, in the order of their numbers; none for copa."""
    return () if options.task == "copa" else _TASKS[options.task].classes.names


def rows(options: Options) -> Iterator[Example]:
    """Yield one question with its answer a record.

    Raises:
        DataError: A record is malformed or its label is kept secret; names its file and line.
    """
    return map(choosing.chat, questions(options))


def labelled(options: Options) -> Iterator[Labelled]:
    """Yield one text or two with their class a record, not for copa; raises as ``rows`` does."""
    task = _TASKS[options.task]
    for origin, record in _records(options):
        label = choosing.first(record, ("label",), origin)
        yield task.classes.labelled(task.texts(record, origin), label, origin)


def questions(options: Options) -> Iterator[Question]:
    """Yield one question and its possible answers a record; raises as ``rows`` does."""
    for origin, record in _records(options):
        label = choosing.first(record, ("label",), origin)
        if options.task == "copa":
            yield _alternatives(record, label, origin)
        else:
            task = _TASKS[options.task]
            yield task.classes.question(task.prompt(record, origin), label, origin)


def _records(options: Options) -> Iterator[tuple[str, Record]]:
    if options.path is None:
        return hub.records(options.hub, options.task, options.revision, options.split)
    found = tabular.records(options.path)
    if options.task == "multirc":
        return _answers(found)
    return _with_spans(found) if options.task == "wsc" else found


def _answers(passages: Iterator[tuple[str, Record]]) -> Iterator[tuple[str, Record]]:
    """One record an answer; the official file has one a passage, with its questions inside."""
    for origin, record in passages:
        if not (isinstance(record, dict) and isinstance(record.get("passage"), dict)):
            yield origin, record  # in the Hub's layout already
            continue
        passage = record["passage"]
        for i, asked in enumerate(field(passage, "questions", list, origin)):
            place = f"{origin}: questions[{i}]"
            for j, answer in enumerate(field(asked, "answers", list, place)):
                where = f"{place}.answers[{j}]"
                yield (
                    where,
                    {
                        "paragraph": choosing.text(passage, ("text",), origin),
                        "question": choosing.text(asked, ("question",), place),
                        "answer": choosing.text(answer, ("text",), where),
                        "label": choosing.first(answer, ("label",), where),
                    },
                )


def _with_spans(found: Iterator[tuple[str, Record]]) -> Iterator[tuple[str, Record]]:
    """Records with their spans beside the text; the official file has them in ``target``."""
    for origin, record in found:
        nested = isinstance(record, dict) and isinstance(record.get("target"), dict)
        yield origin, {**record, **record["target"]} if nested else record


def _alternatives(record: Record, label: object, origin: str) -> Question:
    """Which of two sentences goes on from a premise, as its cause or its effect."""
    asked = choosing.text(record, ("question",), origin)
    if asked not in ("cause", "effect"):
        raise DataError(f"'question' must be cause or effect, not {asked!r}", origin)
    word = "because" if asked == "cause" else "therefore"
    premise = choosing.text(record, ("premise",), origin).removesuffix(".")
    choices = tuple(choosing.text(record, (name,), origin) for name in ("choice1", "choice2"))
    answer = Classes(("choice1", "choice2"), choices).number(label, origin)
    going_on = tuple(f" {choice[0].lower()}{choice[1:]}" for choice in choices)
    return Question(f"{premise} {word}", going_on, answer, origin)


def _of(*names: str) -> Callable[[Record, str], tuple[str, ...]]:
    """The texts in these columns."""
    return lambda record, origin: tuple(choosing.text(record, (name,), origin) for name in names)


def _prompt(template: str, *names: str) -> Callable[[Record, str], str]:
    """The texts in these columns, put into a template."""
    return lambda record, origin: template.format(*_of(*names)(record, origin))


def _answer_texts(record: Record, origin: str) -> tuple[str, ...]:
    paragraph, question, answer = _of("paragraph", "question", "answer")(record, origin)
    return paragraph, f"{question} {answer}"


def _word_texts(record: Record, origin: str) -> tuple[str, ...]:
    word, one, other = _of("word", "sentence1", "sentence2")(record, origin)
    return f"{word}: {one}", f"{word}: {other}"


def _pronoun_texts(record: Record, origin: str) -> tuple[str, ...]:
    text, noun, pronoun = _of("text", "span1_text", "span2_text")(record, origin)
    return text, f"{pronoun}: {noun}"


_TASKS: dict[str, _Task] = {
    "boolq": _Task(
        _of("question", "passage"),
        _prompt("{1}\nQuestion: {0}?\nAnswer:", "question", "passage"),
        _YES_NO,
    ),
    "cb": _Task(
        _of("premise", "hypothesis"),
        _prompt("{0}\nQuestion: {1}. True, False or Neither?\nAnswer:", "premise", "hypothesis"),
        Classes(("entailment", "contradiction", "neutral"), ("True", "False", "Neither")),
    ),
    "multirc": _Task(
        _answer_texts,
        _prompt(
            "{0}\nQuestion: {1}\nProposed answer: {2}\n"
            "Question: Is the proposed answer right?\nAnswer:",
            *("paragraph", "question", "answer"),
        ),
        _YES_NO,
    ),
    "rte": _Task(
        _of("premise", "hypothesis"),
        _prompt("{0}\nQuestion: {1} True or False?\nAnswer:", "premise", "hypothesis"),
        Classes(("entailment", "not_entailment"), ("True", "False")),
    ),
    "wic": _Task(
        _word_texts,
        _prompt(
            "Sentence 1: {1}\nSentence 2: {2}\n"
            "Question: Is the word '{0}' used in the same way in both sentences?\nAnswer:",
            *("word", "sentence1", "sentence2"),
        ),
        _YES_NO,
    ),
    "wsc": _Task(
        _pronoun_texts,
        _prompt(
            "Passage: {0}\nQuestion: Does the pronoun '{2}' in the passage refer to '{1}'?\n"
            "Answer:",
            *("text", "span1_text", "span2_text"),
        ),
        _YES_NO,
    ),
}
