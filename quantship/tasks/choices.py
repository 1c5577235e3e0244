"""Questions answered by choosing: which of a few answers a language model finds most likely.

In a recipe: ``{task: choices, name: sst2, source: {adapter: glue, task: sst2, path: dev.tsv}}``.

    the expressive power of the camera
    Question: Is this sentence positive or negative?
    Answer:

is a prompt, ``negative`` and ``positive`` the choices. Right is the one whose tokens are the most
likely to come next (``accuracy``), or the most likely by its length in characters
(``accuracy_norm``), which does not favour short ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Literal, cast

from pydantic import field_validator

from quantship.data import Question, Source, holds_questions, questions
from quantship.tasks.base import Context, Example, Metric, Outcome, Subject, TaskOptions, known_as

if TYPE_CHECKING:
    from quantship.runtimes.base import Runtime
    from quantship.tasks.continuations import Continuation

METRICS = (
    Metric("accuracy", "higher", "share", judges=True),
    Metric("accuracy_norm", "higher", "share", judges=True),
)
UNFINISHED = "examples.jsonl"
"""File in the directory that survives a kill: a line a question, in their order."""
AT_ONCE = 64
"""Questions between two savings of what is done."""


class Options(TaskOptions):
    """Questions of GLUE or SuperGLUE, answered by the most likely of their choices."""

    task: Literal["choices"]
    source: Source
    """Where the questions are: a source whose records are answered by choosing."""
    chat: bool = False
    """Ask through the chat template: the prompt is the user's turn, the choice the answer."""

    @field_validator("source")
    @classmethod
    def _asks(cls, source: Source) -> Source:
        if not holds_questions(source):
            raise ValueError(
                f"{source.adapter} has no questions to choose answers of; use glue or superglue"
            )
        return source


def evaluate(subject: Subject, options: Options, context: Context) -> Outcome:
    """Which choice is the most likely, question by question."""
    from itertools import islice

    from quantship import lines, progress
    from quantship.tasks import class_scores

    asked = list(islice(questions(options.source), options.limit))
    ways = [_ways(question, subject, options, context) for question in asked]
    runtime = cast("Runtime", subject.runtime)
    journal = context.resume / UNFINISHED
    examples = [Example(**one) for one in lines.read(journal)]
    with progress.bar("choosing", len(asked)) as bar:
        for start in range(len(examples), len(asked), AT_ONCE):
            group = slice(start, start + AT_ONCE)
            made = _judged(asked[group], ways[group], runtime, context)
            lines.append(map(asdict, made), journal)
            examples += made
            bar.move_to(len(examples))
    answered = [
        [choice.strip() for choice in question.choices].index(str(example.answer))
        for question, example in zip(asked, examples, strict=True)
    ]
    return Outcome(
        METRICS,
        examples,
        extra=class_scores.official(options.source, [one.answer for one in asked], answered),
        notes=_notes(ways, context.max_length),
    )


def _ways(
    question: Question, subject: Subject, options: Options, context: Context
) -> list[Continuation]:
    """How the prompt may go on: a way a choice."""
    from quantship.data.source import Message
    from quantship.data.templating import render_prompt
    from quantship.tasks import continuations

    assert subject.tokenizer is not None
    prompt, choices = question.prompt, question.choices
    if options.chat:
        turn = Message(role="user", content=prompt)
        prompt = render_prompt([turn], subject.tokenizer, context.chat_template, question.origin)
        choices = tuple(choice.strip() for choice in choices)
    return [continuations.encode(subject.tokenizer, prompt, choice) for choice in choices]


def _judged(
    asked: Sequence[Question],
    ways: Sequence[Sequence[Continuation]],
    runtime: Runtime,
    context: Context,
) -> list[Example]:
    from quantship.tasks import continuations

    places = [(row, column) for row, one in enumerate(ways) for column in range(len(one))]
    wanted = [ways[row][column].within(context.max_length) for row, column in places]
    likely = [[0.0] * len(one) for one in ways]
    for place, score in continuations.score(runtime, wanted, context.batch_size):
        row, column = places[place]
        likely[row][column] = score.log_likelihood_nats
    return [_example(question, row) for question, row in zip(asked, likely, strict=True)]


def _example(question: Question, likely: Sequence[float]) -> Example:
    choices = [choice.strip() for choice in question.choices]
    by_length = [one / len(choice) for one, choice in zip(likely, choices, strict=True)]
    best, best_by_length = _highest(likely), _highest(by_length)
    return Example(
        id=known_as(question.origin),
        values={
            "accuracy": float(best == question.answer),
            "accuracy_norm": float(best_by_length == question.answer),
        },
        prompt=question.prompt,
        expected=choices[question.answer],
        answer=choices[best],
    )


def _highest(values: Sequence[float]) -> int:
    return max(range(len(values)), key=values.__getitem__)


def _notes(ways: Sequence[Sequence[Continuation]], max_length: int) -> list[str]:
    cut = sum(any(one.within(max_length) != one for one in each) for each in ways)
    if not cut:
        return []
    return [
        f"{cut} of {len(ways)} questions are longer than {max_length} tokens: models did not see "
        "their beginning."
    ]
