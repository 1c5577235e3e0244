r"""MBPP: short Python functions, right where their tests pass.

In a recipe: ``{task: mbpp, source: {adapter: mbpp, path: mbpp.jsonl}, limit: 100}``, which runs
with ``--allow-code`` only: what a model writes is run, in a process that ``sandbox`` describes.

A model with a chat template is given task and tests as the user's turn, with ``shots`` solved ones
as turns before it, and the first block of code in its answer counts, or all of an answer without a
block. One without a template reads

    You are an expert Python programmer, and here is your task: Write a function to ...
    assert similar_elements((3, 4, 5, 6),(5, 7, 4, 10)) == (4, 5)
    [BEGIN]

after so many solved ones, and its answer ends at ``[DONE]``. ``pass_at_1`` is the share of greedy
answers whose every assert holds.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Literal

from pydantic import Field, field_validator

from quantship.data import Message, mbpp
from quantship.data.fields import exchange
from quantship.data.mbpp import Problem
from quantship.tasks import sandbox
from quantship.tasks.base import (
    Context,
    Example,
    Metric,
    Obstacle,
    Outcome,
    Subject,
    TaskOptions,
    known_as,
)
from quantship.tasks.prompting import Request, shortened

if TYPE_CHECKING:
    from quantship.tasks.sandbox import Verdict

METRICS = (Metric("pass_at_1", "higher", "share", judges=True),)
UNTIL = ("[DONE]",)
"""Texts that end the answer of a model without a chat template."""
_BLOCK = re.compile(r"```[^\n`]*\n(.*?)(?:```|\Z)", re.DOTALL)


class Options(TaskOptions):
    """Short Python functions by generation, judged by running their tests."""

    task: Literal["mbpp"]
    source: mbpp.Options = mbpp.Options(adapter="mbpp", split="test")
    """The problems; default: the test split."""
    shots: int = Field(default=0, ge=0, le=10)
    """Solved problems to show before each, from the source's ``prompt`` split."""
    max_new_tokens: int = Field(default=256, ge=1)
    """Longest answer in tokens."""
    timeout_s: float = Field(default=sandbox.TIMEOUT_S, gt=0)
    """Longest time that an answer and its tests may run."""

    @field_validator("source")
    @classmethod
    def _test_split(cls, source: mbpp.Options) -> mbpp.Options:
        chosen = "split" in source.model_fields_set
        return source if chosen else source.model_copy(update={"split": "test"})

    @property
    def runs_code(self) -> str | None:
        """Always: that is how answers are judged."""
        return "runs the Python programs that the models write, under limits and without a network"

    def find_obstacles(self) -> Iterable[Obstacle]:
        """What keeps programs from running here."""
        reason = sandbox.reject()
        if reason is not None:
            yield Obstacle("task", reason, "Leave the task out on this machine.")


def evaluate(subject: Subject, options: Options, context: Context) -> Outcome:
    """Whether each answer passes its tests."""
    from itertools import islice

    from quantship import progress
    from quantship.tasks import answers

    problems = list(islice(mbpp.problems(options.source), options.source.limit))[: options.limit]
    solved = options.source.model_copy(update={"split": "prompt"})
    shots = list(islice(mbpp.problems(solved), options.shots)) if options.shots else []
    requests = [_request(problem, shots) for problem in problems]
    found, notes = answers.collect(subject, requests, options.max_new_tokens, context, until=UNTIL)
    verdicts = [
        sandbox.run(program(answer.text, problem), timeout_s=options.timeout_s)
        for problem, answer in progress.track(
            zip(problems, found, strict=True), "running", len(problems)
        )
    ]
    return Outcome(
        METRICS,
        [
            Example(
                known_as(problem.origin),
                {"pass_at_1": float(verdict.passed)},
                prompt=shortened(problem.prompt),
                expected=problem.code,
                answer=answer.text,
            )
            for problem, answer, verdict in zip(problems, found, verdicts, strict=True)
        ],
        notes=[*notes, *_notes(verdicts)],
    )


def program(answer: str, problem: Problem) -> str:
    """What is run: the code of an answer, what its tests need, and its tests."""
    block = _BLOCK.search(answer)
    code = block.group(1) if block else answer
    return "\n".join([code, problem.setup, *problem.tests, ""])


def _notes(verdicts: Sequence[Verdict]) -> list[str]:
    """Why programs failed, and what each had given up before it began."""
    reasons = Counter(verdict.reason for verdict in verdicts if not verdict.passed)
    notes = []
    if reasons:
        listed = ", ".join(f"{count} {reason}" for reason, count in reasons.most_common())
        notes.append(f"programs that failed: {listed}")
    begun = [set(verdict.enforced) for verdict in verdicts if verdict.enforced]
    if begun:
        held = [words for words in _ordered(verdicts) if all(words in one for one in begun)]
        notes.append(f"programs ran with {'; '.join(held)}")
    return notes


def _ordered(verdicts: Sequence[Verdict]) -> tuple[str, ...]:
    return next(verdict.enforced for verdict in verdicts if verdict.enforced)


def _request(problem: Problem, shots: Sequence[Problem]) -> Request:
    messages: list[Message] = []
    parts: list[str] = []
    for shot in shots:
        messages += exchange(shot.prompt, f"```python\n{shot.code.strip()}\n```")
        parts.append(f"{_plain(shot)}{shot.code}\n[DONE]")
    messages.append({"role": "user", "content": problem.prompt})
    return Request(tuple(messages), "\n\n".join([*parts, _plain(problem)]), problem.origin)


def _plain(problem: Problem) -> str:
    return (
        f"You are an expert Python programmer, and here is your task: {problem.prompt}\n[BEGIN]\n"
    )
