r"""GLUE: one or two sentences, and the class they belong to.

A record of ``task: sst2`` and one of ``task: rte``, in the layout of the official archives:

    sentence                                            label
    the expressive power of the camera                  1

    index  sentence1                  sentence2         label
    0      No weapons were found.     Weapons were ...  not_entailment

CSV, JSON Lines and Parquet files with the same columns, or those that the Hub's copy has, are read
as well. As a chat, a record is a question and its answer in a word:

    No weapons were found.
    Question: Weapons were found. True or False?
    Answer:

is a user turn, and ``False`` the assistant's. Lines of ``qqp`` that a line end inside a question
has cut in two, of which the official file has a few, are passed over. ``stsb`` is left out: it is
not a choice between classes but a number from 0 to 5.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar, Literal

from quantship.data import choosing, hub, tabular
from quantship.data.choosing import Classes
from quantship.data.files import text_lines
from quantship.data.source import Example, FileOptions, Labelled, Question

TaskName = Literal["cola", "mnli", "mrpc", "qnli", "qqp", "rte", "sst2", "wnli"]
_LABEL = ("label", "gold_label", "is_duplicate", "Quality")
_FIRST = ("sentence1", "#1 String")
_SECOND = ("sentence2", "#2 String")
_COLA_COLUMNS = ("source", "label", "mark", "sentence")
_ENTAILED = ("entailment", "not_entailment")


@dataclass(frozen=True)
class _Task:
    columns: tuple[tuple[str, ...], ...]
    """Names of each text's column, the first one there is."""
    prompt: str
    classes: Classes


_TASKS: dict[TaskName, _Task] = {
    "cola": _Task(
        (("sentence",),),
        "{0}\nQuestion: Does this sentence make sense?\nAnswer:",
        Classes(("unacceptable", "acceptable"), ("no", "yes")),
    ),
    "mnli": _Task(
        (("premise", "sentence1"), ("hypothesis", "sentence2")),
        "{0}\nQuestion: {1} True, False or Neither?\nAnswer:",
        Classes(("entailment", "neutral", "contradiction"), ("True", "Neither", "False")),
    ),
    "mrpc": _Task(
        (_FIRST, _SECOND),
        "Sentence 1: {0}\nSentence 2: {1}\n"
        "Question: Do both sentences mean the same thing?\nAnswer:",
        Classes(("not_equivalent", "equivalent"), ("no", "yes")),
    ),
    "qnli": _Task(
        (("question",), ("sentence",)),
        "{0}\n{1}\nQuestion: Does this response answer the question?\nAnswer:",
        Classes(_ENTAILED, ("yes", "no")),
    ),
    "qqp": _Task(
        (("question1",), ("question2",)),
        "Question 1: {0}\nQuestion 2: {1}\n"
        "Question: Do both questions ask the same thing?\nAnswer:",
        Classes(("not_duplicate", "duplicate"), ("no", "yes")),
    ),
    "rte": _Task(
        (_FIRST, _SECOND),
        "{0}\nQuestion: {1} True or False?\nAnswer:",
        Classes(_ENTAILED, ("True", "False")),
    ),
    "sst2": _Task(
        (("sentence",),),
        "{0}\nQuestion: Is this sentence positive or negative?\nAnswer:",
        Classes(("negative", "positive"), ("negative", "positive")),
    ),
    "wnli": _Task(
        (_FIRST, _SECOND),
        "{0}\nQuestion: {1} True or False?\nAnswer:",
        Classes(("not_entailment", "entailment"), ("False", "True")),
    ),
}


class Options(FileOptions):
    """A task of GLUE, from a file (.tsv, .csv, .jsonl, .parquet) or from nyu-mll/glue."""

    hub: ClassVar = "nyu-mll/glue"
    adapter: Literal["glue"]
    task: TaskName
    """Task of GLUE; stsb, whose labels are no classes, is left out."""


def class_names(options: Options) -> tuple[str, ...]:
    """The task's classes, in the order of their numbers."""
    return _TASKS[options.task].classes.names


def rows(options: Options) -> Iterator[Example]:
    """Yield one question with its answer a record.

    Raises:
        DataError: A record is malformed or its label is kept secret; names its file and line.
    """
    return map(choosing.chat, questions(options))


def labelled(options: Options) -> Iterator[Labelled]:
    """Yield one sentence or two with their class a record; raises as ``rows`` does."""
    task = _TASKS[options.task]
    for origin, record in _records(options):
        label = choosing.first(record, _LABEL, origin)
        yield task.classes.labelled(_texts(task, record, origin), label, origin)


def questions(options: Options) -> Iterator[Question]:
    """Yield one question and its possible answers a record; raises as ``rows`` does."""
    task = _TASKS[options.task]
    for origin, record in _records(options):
        prompt = task.prompt.format(*_texts(task, record, origin))
        yield task.classes.question(prompt, choosing.first(record, _LABEL, origin), origin)


def _texts(task: _Task, record: Mapping[str, Any], origin: str) -> tuple[str, ...]:
    return tuple(choosing.text(record, names, origin) for names in task.columns)


def _records(options: Options) -> Iterator[tuple[str, Mapping[str, Any]]]:
    if options.path is None:
        return hub.records(options.hub, options.task, options.revision, options.split)
    headless = _COLA_COLUMNS if options.task == "cola" and _has_no_head(options.path) else None
    return tabular.records(options.path, headless, skip_ragged=options.task == "qqp")


def _has_no_head(path: Path) -> bool:
    """Whether a file of CoLA is as its authors left it: four columns without names."""
    if path.suffix.lower() != ".tsv":
        return False
    for _, line in islice(text_lines(path), 1):
        columns = line.split("\t")
        return len(columns) == len(_COLA_COLUMNS) and columns[1] in ("0", "1")
    return False
